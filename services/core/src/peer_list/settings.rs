//! Every number of the peer list.

use std::time::Duration;

/// Limits and times of the peer list.
#[derive(Clone, Debug)]
pub struct PeerListSettings {
    /// Links for one content (the textbook's subset of 50 peers).
    pub max_neighbours: usize,
    /// Of these, links reserved for peers that we dial: peers that dial us must not take all.
    pub reserved_for_dialled: usize,
    /// Links for one content with peers of one host that dialled us. Many may share an address
    /// behind NAT: half of all links.
    pub max_neighbours_per_host: usize,
    /// No peer is dialled beyond this number of links, so that later peers still find free ones.
    /// BitTorrent clients dial up to 30 peers and accept up to 55 (theory.org,
    /// BitTorrentSpecification).
    pub dial_until: usize,
    /// Links of the process; of those that dialled us, half may be of one host.
    pub max_links: usize,
    /// Dials for one content that began within [`PeerListSettings::dial_turn`]. Four times as many
    /// may be in progress.
    pub max_dials: usize,
    /// How long a dial prevents others from beginning: peers that accept a connection and never
    /// answer must not delay one that does.
    pub dial_turn: Duration,
    /// Candidates remembered for one content.
    pub max_candidates: usize,
    /// Of these, with addresses of one host. Half.
    pub max_candidates_per_host: usize,
    /// The pause after the first failed dial; doubled for each further one.
    pub first_backoff: Duration,
    /// The longest pause between two dials.
    pub max_backoff: Duration,
    /// A candidate that failed this often in a row is forgotten until it is named again.
    pub max_failures: u32,
    /// Failed dials to one host, whatever their ports, contents and ids, after which further dials
    /// are limited to [`PeerListSettings::host_failures_per_s`]. Enough for the peers of one
    /// machine that end together.
    pub host_failures: f64,
    /// Further dials to such a host each second.
    pub host_failures_per_s: f64,
    /// How long a ban lasts.
    pub ban: Duration,
    /// Bans at a time.
    pub max_bans: usize,
    /// Of these, of one host.
    pub max_bans_per_host: usize,
}

impl Default for PeerListSettings {
    fn default() -> Self {
        Self {
            max_neighbours: 50,
            reserved_for_dialled: 10,
            max_neighbours_per_host: 25,
            dial_until: 30,
            max_links: 500,
            max_dials: 16,
            dial_turn: Duration::from_secs(1),
            max_candidates: 500,
            max_candidates_per_host: 250,
            first_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(30),
            max_failures: 8,
            host_failures: 64.0,
            host_failures_per_s: 4.0,
            ban: Duration::from_secs(3600),
            max_bans: 1024,
            max_bans_per_host: 64,
        }
    }
}
