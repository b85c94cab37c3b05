//! Processor time stolen from this virtual machine: measurements with much of it are misleading.

use std::fs;

use anyhow::Context as _;

/// Ticks of all processors since the start of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticks {
    /// Ticks that the hypervisor gave to other machines while this one had work.
    stolen: u64,
    all: u64,
}

impl Ticks {
    pub(super) fn now() -> anyhow::Result<Self> {
        let path = "/proc/stat";
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(&text).with_context(|| format!("{path} does not have the format of proc(5)"))
    }

    /// By proc(5): user, nice, system, idle, iowait, irq, softirq, steal. Guest time is part of
    /// user.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> =
            line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { stolen: *ticks.get(7)?, all: ticks.iter().sum() })
    }

    /// The stolen share of the ticks since `then`, in percent.
    pub(super) fn stolen_since(self, then: Self) -> f64 {
        100.0 * (self.stolen - then.stolen) as f64 / (self.all - then.all).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_ticks_are_a_share_of_all() {
        let then = Ticks::parse("cpu  10 0 10 70 0 0 0 10 5 0\ncpu0 1 1\n").unwrap();
        assert_eq!(then, Ticks { stolen: 10, all: 100 });
        let now = Ticks { stolen: 20, all: 300 };
        assert!((now.stolen_since(then) - 5.0).abs() < 1e-9);
        assert_eq!(Ticks::parse("cpu  1 2 3\n"), None);
    }
}
