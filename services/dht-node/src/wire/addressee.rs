//! The node that a call is meant for.
//!
//! A promise counts as a promise of the node that was asked. After a restart another node may have
//! its address, even the caller itself, which would then form a majority alone.

use shoal_common::ring_client::ADDRESSEE;
use shoal_core::ring::NodeId;
use tonic::{Request, Status, metadata::MetadataMap, service::Interceptor};

use super::refusal::{self, Reason};

/// Names the node in each call to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addressee(pub(crate) NodeId);

impl Interceptor for Addressee {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let id = self.0.to_string().try_into().expect("a UUID is ASCII");
        request.metadata_mut().insert(ADDRESSEE, id);
        Ok(request)
    }
}

/// Refuses a call that is meant for another node than this one. A call that names none is accepted:
/// clients do not know which node they reach.
pub(crate) fn check_addressee(me: NodeId, metadata: &MetadataMap) -> Result<(), Status> {
    let Some(id) = metadata.get(ADDRESSEE) else { return Ok(()) };
    if id.to_str().is_ok_and(|id| id.parse() == Ok(me)) {
        return Ok(());
    }
    // Nothing has happened, and the caller may find out which node has this address now.
    Err(refusal::status(Reason::NotServing, format!("another node is here: {me}")))
}

/// Refuses a call that does not name this node: calls between nodes change what they know, or are
/// answered in this node's name.
pub(crate) fn require_addressee(me: NodeId, metadata: &MetadataMap) -> Result<(), Status> {
    if metadata.get(ADDRESSEE).is_none() {
        return Err(Status::invalid_argument(format!(
            "a call between ring nodes names the node it is meant for in the metadata {ADDRESSEE}; \
             this node is {me}"
        )));
    }
    check_addressee(me, metadata)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_call_for_another_node_is_refused_and_one_without_an_addressee_where_it_must_have_one() {
        let [me, other] = [1, 2].map(|number| NodeId::new(Uuid::from_u128(number)));
        let meant_for = |id| Addressee(id).call(Request::new(())).expect("it is taken");
        let (mine, theirs, nobodys) = (meant_for(me), meant_for(other), Request::new(()));
        for check in [check_addressee, require_addressee] {
            assert!(check(me, mine.metadata()).is_ok());
            let refused = check(me, theirs.metadata()).expect_err("it is for another");
            assert_eq!(refused.code(), tonic::Code::Unavailable);
        }
        assert!(check_addressee(me, nobodys.metadata()).is_ok());
        let refused = require_addressee(me, nobodys.metadata()).expect_err("it is for nobody");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(ADDRESSEE), "{refused}");
    }
}
