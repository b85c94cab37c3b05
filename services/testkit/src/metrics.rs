//! The metrics of services, read from their Prometheus endpoint.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

/// A metric of the service whose admin port is at HOST:PORT, summed over all labels.
pub fn figure(admin: &str, name: &str) -> io::Result<f64> {
    let page = page(admin)?;
    let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    let figures = lines.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'));
    Ok(figures.filter_map(|(_, figure)| figure.parse::<f64>().ok()).sum())
}

fn page(admin: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
