//! DNS names: a headless Service or an alias has an address for each replica, and they change over
//! time.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use shoal_core::Address;
use tokio::time::{Instant, timeout};

use crate::lock::{Mutex, MutexGuard};

/// How long an answer is cached: Kubernetes' DNS allows 5 to 30 s.
const FRESH: Duration = Duration::from_secs(10);

/// Longest wait for the resolver.
const PATIENCE: Duration = Duration::from_secs(5);

/// Addresses used of one name, at most.
const MAX_ADDRESSES: usize = 1000;

/// Names cached; beyond that, some are evicted.
const MAX_NAMES: usize = 1024;

/// A name cannot be resolved.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{host} cannot be looked up: {reason}")]
pub struct LookUpError {
    host: String,
    reason: String,
}

/// A resolver.
type Resolver = dyn Fn(Address) -> Resolving + Send + Sync;
type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Resolves names, and caches the answers. Cheap to clone; clones share the cache, which is
/// bounded, because strangers may name hosts.
#[derive(Clone)]
pub struct DnsCache {
    resolver: Arc<Resolver>,
    known: Arc<Mutex<HashMap<Address, Known>>>,
}

struct Known {
    addresses: Vec<Address>,
    since: Instant,
}

impl fmt::Debug for DnsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsCache").finish_non_exhaustive()
    }
}

impl Default for DnsCache {
    /// The system's names: hosts file and DNS.
    fn default() -> Self {
        Self::by(|name| async move {
            Ok(tokio::net::lookup_host((name.host(), name.port())).await?.collect())
        })
    }
}

impl DnsCache {
    /// Names as `resolver` resolves them.
    pub fn by<F>(resolver: impl Fn(Address) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let resolver: Arc<Resolver> = Arc::new(move |name| Box::pin(resolver(name)));
        Self { resolver, known: Arc::default() }
    }

    /// The addresses of a name, in order; an IP address stands for itself. The last answer is used
    /// while the name cannot be resolved.
    pub async fn addresses(&self, name: &Address) -> Result<Vec<Address>, LookUpError> {
        if name.ip().is_some() {
            return Ok(vec![name.clone()]);
        }
        let now = Instant::now();
        if let Some(known) = self.lock().get_mut(name) {
            if now.duration_since(known.since) < FRESH {
                return Ok(known.addresses.clone());
            }
            // One caller resolves it again; the others use the cached answer.
            known.since = now;
        }
        match self.look_up(name).await {
            Ok(addresses) => {
                let known = Known { addresses: addresses.clone(), since: now };
                let mut names = self.lock();
                if names.len() >= MAX_NAMES {
                    names.retain(|_, known| now.duration_since(known.since) < FRESH);
                }
                if names.len() < MAX_NAMES || names.contains_key(name) {
                    names.insert(name.clone(), known);
                }
                drop(names);
                Ok(addresses)
            }
            Err(reason) => {
                let known = self.lock().get(name).map(|known| known.addresses.clone());
                known.ok_or_else(|| LookUpError { host: name.host(), reason })
            }
        }
    }

    async fn look_up(&self, name: &Address) -> Result<Vec<Address>, String> {
        let found = match timeout(PATIENCE, (self.resolver)(name.clone())).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the resolver does not answer".to_owned()),
        };
        let addresses: BTreeSet<_> = found.into_iter().map(Address::from).collect();
        if addresses.is_empty() {
            return Err("no address is behind it".to_owned());
        }
        Ok(addresses.into_iter().take(MAX_ADDRESSES).collect())
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Known>> {
        self.known.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn trackers(count: u8) -> Vec<Address> {
        (0..count).map(|n| format!("10.0.0.{n}:7070").parse().unwrap()).collect()
    }

    /// Names that `answer` resolves, and how often they were resolved.
    fn names(
        answer: impl Fn(usize) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> (DnsCache, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let names = DnsCache::by(move |_| {
            std::future::ready(answer(counted.fetch_add(1, Ordering::Relaxed)))
        });
        (names, count)
    }

    fn name() -> Address {
        "trackers:7070".parse().unwrap()
    }

    fn sockets(hosts: &[u8]) -> Vec<SocketAddr> {
        hosts.iter().map(|host| SocketAddr::from(([10, 0, 0, *host], 7070))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_stands_for_each_address_once_and_is_looked_up_again_after_a_while() {
        let (names, count) = names(|n| Ok(sockets(if n == 0 { &[2, 1, 2] } else { &[3] })));
        for _ in 0..3 {
            assert_eq!(names.addresses(&name()).await.unwrap(), trackers(3)[1..]);
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        tokio::time::advance(FRESH).await;
        assert_eq!(names.addresses(&name()).await.unwrap(), trackers(4)[3..]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_known_goes_on_while_a_name_cannot_be_looked_up() {
        let (names, _) = names(|n| match n {
            0 => Ok(sockets(&[1])),
            1 => Ok(Vec::new()),
            _ => Err(io::Error::other("no such host")),
        });
        for _ in 0..3 {
            assert_eq!(names.addresses(&name()).await.unwrap(), trackers(2)[1..]);
            tokio::time::advance(FRESH).await;
        }
        let other: Address = "nobody:7070".parse().unwrap();
        let error = names.addresses(&other).await.expect_err("it was never known");
        assert_eq!(error.to_string(), "nobody cannot be looked up: no such host");
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_does_not_answer_is_not_waited_for() {
        let names = DnsCache::by(|_| std::future::pending());
        let error = names.addresses(&name()).await.expect_err("it does not");
        assert!(error.to_string().contains("does not answer"), "{error}");
    }

    #[tokio::test]
    async fn a_number_needs_no_resolver_and_the_system_knows_the_loopback() {
        let (names, count) = names(|_| Err(io::Error::other("no")));
        assert_eq!(names.addresses(&trackers(1)[0]).await.unwrap(), trackers(1));
        assert_eq!(count.load(Ordering::Relaxed), 0);
        let localhost: Address = "localhost:7".parse().unwrap();
        let found = DnsCache::default().addresses(&localhost).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_some_and(|ip| ip.is_loopback())));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let names = DnsCache::by(|name: Address| async move {
            Ok(vec![SocketAddr::from(([10, 0, 0, 1], name.port()))])
        });
        let look_up = async |number: usize| {
            let name: Address = format!("host{number}:7070").parse().unwrap();
            names.addresses(&name).await.expect("it is found");
        };
        for number in 0..2 * MAX_NAMES {
            look_up(number).await;
        }
        assert_eq!(names.lock().len(), MAX_NAMES);
        tokio::time::advance(FRESH).await;
        look_up(2 * MAX_NAMES).await;
        assert_eq!(names.lock().len(), 1);
    }
}
