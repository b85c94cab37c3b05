//! Whom a call is meant for.
//!
//! A promise counts as the one of the node that was asked. After a restart another node may be where
//! that one was, even the caller itself, which would then make a majority alone.

use shoal_core::ring::NodeId;
use tonic::{Request, Status, service::Interceptor};

/// The metadata that names the node.
const ADDRESSEE: &str = "shoal-addressee";

/// Names the node in each call to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addressee(pub(crate) NodeId);

impl Interceptor for Addressee {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let id = self.0.to_string().parse().expect("a UUID is ASCII");
        request.metadata_mut().insert(ADDRESSEE, id);
        Ok(request)
    }
}

/// Refuses what is meant for another node than this one. A call that names none is taken.
pub(crate) fn check_addressee(me: NodeId, request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get(ADDRESSEE) {
        Some(id) if id.as_bytes() != me.to_string().as_bytes() => {
            Err(Status::failed_precondition(format!("another node is here: {me}")))
        }
        _ => Ok(request),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_call_for_another_node_is_refused() {
        let [me, other] = [1, 2].map(|number| NodeId::new(Uuid::from_u128(number)));
        let meant_for = |id| Addressee(id).call(Request::new(())).unwrap();
        assert!(check_addressee(me, meant_for(me)).is_ok());
        assert!(check_addressee(me, Request::new(())).is_ok());
        let refused = check_addressee(me, meant_for(other)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    }
}
