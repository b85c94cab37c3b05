//! What the peer's threads look up: contents by id, links by token.
//!
//! Only the engine writes; readers never wait for it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shoal_common::lock::RwLock;
use shoal_core::{
    content::ContentId,
    swarm::{ContentKey, LinkKey},
};
use tokio::{sync::watch, time::timeout};

use crate::{link::LinkToken, store::Stored, transfer::ContentIndex};

/// The contents and links of one peer.
#[derive(Default)]
pub(crate) struct Directory {
    contents: RwLock<HashMap<ContentId, Entry>>,
    links: RwLock<HashMap<LinkToken, (ContentKey, LinkKey)>>,
}

#[derive(Clone)]
struct Entry {
    key: ContentKey,
    /// None while the manifest is being fetched.
    stored: watch::Receiver<Option<Arc<Stored>>>,
}

impl Directory {
    pub(super) fn insert(
        &self,
        id: ContentId,
        key: ContentKey,
        stored: watch::Receiver<Option<Arc<Stored>>>,
    ) {
        let mut contents = self.contents.write();
        contents.insert(id, Entry { key, stored });
    }

    pub(super) fn remove(&self, id: ContentId) {
        self.contents.write().remove(&id);
    }

    /// A content, after waiting for its manifest if that is being fetched.
    pub(crate) async fn content_within(
        &self,
        id: ContentId,
        patience: Duration,
    ) -> Option<(ContentKey, Arc<Stored>)> {
        let mut entry = self.entry(id)?;
        let found = timeout(patience, entry.stored.wait_for(Option::is_some)).await.ok()?.ok()?;
        Some((entry.key, found.clone()?))
    }

    /// All contents with a manifest.
    pub(crate) fn stored(&self) -> Vec<(ContentKey, Arc<Stored>)> {
        let contents = self.contents.read();
        let stored = |entry: &Entry| Some((entry.key, entry.stored.borrow().clone()?));
        contents.values().filter_map(stored).collect()
    }

    fn entry(&self, id: ContentId) -> Option<Entry> {
        self.contents.read().get(&id).cloned()
    }

    pub(super) fn insert_link(&self, token: LinkToken, content: ContentKey, link: LinkKey) {
        let mut links = self.links.write();
        links.insert(token, (content, link));
    }

    pub(super) fn remove_link(&self, token: &LinkToken) {
        self.links.write().remove(token);
    }
}

impl ContentIndex for Directory {
    fn content(&self, id: ContentId) -> Option<(ContentKey, Arc<Stored>)> {
        let entry = self.entry(id)?;
        let stored = entry.stored.borrow().clone()?;
        Some((entry.key, stored))
    }

    fn link(&self, content: ContentKey, token: &[u8]) -> Option<LinkKey> {
        let token = LinkToken::parse(token).ok()?;
        let links = self.links.read();
        let (of, link) = links.get(&token)?;
        (*of == content).then_some(*link)
    }
}
