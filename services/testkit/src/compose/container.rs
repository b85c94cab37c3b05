//! One container of the cluster.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, bail};

use super::docker::{docker, stdout_of};

/// A container, running or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Docker's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service in the Compose file.
    pub service: String,
    /// Its number within the service, from 1.
    pub number: u32,
}

impl Container {
    /// Parses a line of `docker ps` in the format [`Self::FORMAT`].
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut next = || fields.next().map(ToOwned::to_owned);
        let (id, name, service) = (next()?, next()?, next()?);
        Some(Self { id, name, service, number: next()?.parse().ok()? })
    }

    /// The format for `docker ps`.
    pub(super) const FORMAT: &str = "{{.ID}}\t{{.Names}}\t\
                                     {{.Label \"com.docker.compose.service\"}}\t\
                                     {{.Label \"com.docker.compose.container-number\"}}";

    /// Its address in the cluster's network, which may change at a restart.
    pub fn address(&self) -> anyhow::Result<IpAddr> {
        let address = self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")?;
        address.parse().with_context(|| format!("{} has no address: {address:?}", self.name))
    }

    /// The address of one of its ports in the cluster's network.
    pub fn socket(&self, port: u16) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(self.address()?, port))
    }

    /// The HOST:PORT on this machine that leads to one of its ports.
    pub fn published(&self, port: u16) -> anyhow::Result<String> {
        docker(["port", &self.id, &port.to_string()])
    }

    /// Kills it with SIGKILL.
    pub fn kill(&self) -> anyhow::Result<()> {
        docker(["kill", &self.id]).map(drop)
    }

    /// Starts it again.
    pub fn start(&self) -> anyhow::Result<()> {
        docker(["start", &self.id]).map(drop)
    }

    /// Restarts it, with the grace period of the Compose file.
    pub fn restart(&self) -> anyhow::Result<()> {
        let grace_s = if self.service.starts_with("dht-node") { "60" } else { "30" };
        docker(["restart", "--time", grace_s, &self.id]).map(drop)
    }

    /// Disconnects it from the network.
    pub fn disconnect(&self, network: &str) -> anyhow::Result<()> {
        docker(["network", "disconnect", network, &self.id]).map(drop)
    }

    /// Connects it to the network again.
    pub fn connect(&self, network: &str) -> anyhow::Result<()> {
        docker(["network", "connect", "--alias", &self.service, network, &self.id]).map(drop)
    }

    /// Copies a file out of it.
    pub fn copy_out(&self, path: &str, to: &Path) -> anyhow::Result<()> {
        let mut command = Command::new("docker");
        command.args(["cp", &format!("{}:{path}", self.id)]).arg(to);
        stdout_of(&mut command).map(drop)
    }

    /// Resident memory of its process in bytes (VmRSS).
    pub fn resident_memory(&self) -> anyhow::Result<u64> {
        let table = docker(["top", &self.id, "-o", "pid,rss"])?;
        let row = table.lines().nth(1).and_then(|row| row.split_whitespace().nth(1));
        let Some(Ok(kibibytes)) = row.map(str::parse::<u64>) else {
            bail!("docker top does not show the memory of {}: {table}", self.name)
        };
        Ok(kibibytes * 1024)
    }

    /// Its last log lines.
    pub fn log(&self, lines: u32) -> String {
        let mut command = Command::new("docker");
        let output = command.args(["logs", "--tail", &lines.to_string(), &self.id]).output();
        output.map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// A property of it, from `docker inspect`.
    pub fn inspect(&self, format: &str) -> anyhow::Result<String> {
        docker(["inspect", "--format", format, &self.id])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_parsed_from_docker_ps() {
        let peer = Container::parse("0a1b\tshoal_peer_12\tpeer\t12").unwrap();
        assert_eq!((peer.name.as_str(), peer.number), ("shoal_peer_12", 12));
        assert_eq!(Container::parse("0a1b\tshoal_cli_run\t\t"), None);
    }
}
