//! Routing: the nodes that a node knows to ask for a position, and lookups through them.

mod fingers;
mod live_nodes;
mod lookup;
mod routing_table;

pub use fingers::{FingerBase, Fingers};
pub use live_nodes::LiveNodes;
pub use lookup::{Failure, Lookup, LookupSettings, Outcome};
pub use routing_table::RoutingTable;
