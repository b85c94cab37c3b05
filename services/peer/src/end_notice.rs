//! A notice that something has ended, which arrives exactly once.

use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TrySendError},
};

/// Tells the engine exactly once that something has ended: when it is sent, or else when it is
/// dropped. So the engine is also told about a task that panics or is dropped half-way.
pub(crate) struct EndNotice<E: Send + 'static> {
    events: mpsc::Sender<E>,
    /// None: sent.
    event: Option<E>,
}

impl<E: Send + 'static> EndNotice<E> {
    /// A notice that sends `otherwise` if it is dropped.
    pub(crate) const fn new(events: mpsc::Sender<E>, otherwise: E) -> Self {
        Self { events, event: Some(otherwise) }
    }

    /// Sends the outcome, and waits for room. If this is dropped in the meantime, the outcome is
    /// sent all the same.
    pub(crate) async fn give(mut self, event: E) {
        self.event = Some(event);
        if let Ok(room) = self.events.reserve().await
            && let Some(event) = self.event.take()
        {
            room.send(event);
        }
    }
}

impl<E: Send + 'static> Drop for EndNotice<E> {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            tell_without_waiting(&self.events, event);
        }
    }
}

/// Sends an event where waiting is impossible. If the channel is full, a task waits for room.
pub(crate) fn tell_without_waiting<E: Send + 'static>(events: &mpsc::Sender<E>, event: E) {
    if let Err(TrySendError::Full(event)) = events.try_send(event)
        && let Ok(runtime) = Handle::try_current()
    {
        let events = events.clone();
        runtime.spawn(async move {
            // The engine has ended.
            let _ = events.send(event).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    async fn all(mut told: mpsc::Receiver<&'static str>) -> Vec<&'static str> {
        let mut all = Vec::new();
        while let Some(event) = timeout(DEADLINE, told.recv()).await.expect("in time") {
            all.push(event);
        }
        all
    }

    #[tokio::test]
    async fn a_notice_arrives_once_whether_sent_or_dropped() {
        let (events, told) = mpsc::channel(4);
        EndNotice::new(events.clone(), "dropped").give("given").await;
        drop(EndNotice::new(events, "dropped"));
        assert_eq!(all(told).await, ["given", "dropped"]);
    }

    #[tokio::test]
    async fn a_notice_arrives_although_the_channel_is_full_and_no_task_waits() {
        let (events, told) = mpsc::channel(1);
        events.send("before").await.unwrap();
        drop(EndNotice::new(events.clone(), "dropped"));
        let giving = EndNotice::new(events, "dropped").give("given");
        // Dropped while it waits for room.
        assert!(timeout(Duration::from_millis(1), giving).await.is_err());
        let mut all = all(told).await;
        all.sort_unstable();
        assert_eq!(all, ["before", "dropped", "given"]);
    }

    #[tokio::test]
    async fn a_task_that_panics_gives_notice_too() {
        let (events, told) = mpsc::channel(1);
        let notice = EndNotice::new(events, "dropped");
        let panicking = tokio::spawn(async move {
            let _notice = notice;
            panic!("as asked");
        });
        assert!(panicking.await.is_err());
        assert_eq!(all(told).await, ["dropped"]);
    }
}
