//! The report of a run: a summary for people, JSON for programs, and a plot.

use std::{collections::BTreeMap, fmt};

use hdrhistogram::Histogram;
use serde::Serialize;
use shoal_chart::{Chart, Curve};
use shoal_core::Address;

use crate::{
    pace::Run,
    record::{Calls, Second},
};

/// The complete report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) targets: Vec<Address>,
    #[serde(rename = "loop")]
    pub(crate) of: Loop,
    /// To all targets together.
    pub(crate) connections: u32,
    pub(crate) concurrency: u32,
    pub(crate) measured: Measured,
    /// An echo server, called in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) baseline: Option<Measured>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Loop {
    Closed,
    Open { calls_per_s: u64 },
}

/// The measurements of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    pub(crate) total: Figures,
    pub(crate) operations: BTreeMap<&'static str, Figures>,
    /// By the second in which calls were due.
    pub(crate) timeline: Vec<Moment>,
}

/// The calls of one kind, or all.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// By code of gRPC; `NOT_BEGUN` were due, but no caller was free until the end.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    pub(crate) answered_per_s: f64,
    pub(crate) bytes: u64,
    pub(crate) bytes_per_s: f64,
    pub(crate) latency_ms: Latency,
}

/// Of the calls that were answered.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Moment {
    pub(crate) second: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Measured {
    pub(crate) fn new(run: &Run) -> Self {
        let seconds = run.took.as_secs_f64();
        let operations = run.record.operations.iter();
        Self {
            seconds,
            total: Figures::new(&run.record.total(), seconds),
            operations: operations
                .map(|(operation, calls)| (operation.name(), Figures::new(calls, seconds)))
                .collect(),
            timeline: run.record.seconds.iter().map(|(at, second)| moment(*at, second)).collect(),
        }
    }
}

impl Figures {
    fn new(calls: &Calls, seconds: f64) -> Self {
        let per_s = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let answered = calls.latency.len();
        Self {
            answered,
            failed: calls.failed(),
            errors: calls.errors.clone(),
            answered_per_s: per_s(answered),
            bytes: calls.bytes,
            bytes_per_s: per_s(calls.bytes),
            latency_ms: Latency::new(&calls.latency),
        }
    }
}

impl Latency {
    fn new(latency: &Histogram<u64>) -> Self {
        let at = |quantile| millis(latency.value_at_quantile(quantile));
        Self {
            min: millis(latency.min()),
            mean: latency.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(latency.max()),
        }
    }
}

fn moment(at: u64, second: &Second) -> Moment {
    let Second { latency, bytes, errors } = second;
    Moment {
        second: at,
        answered: latency.len(),
        failed: *errors,
        bytes: *bytes,
        p50_ms: millis(latency.value_at_quantile(0.5)),
        p99_ms: millis(latency.value_at_quantile(0.99)),
        max_ms: millis(latency.max()),
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

impl Report {
    /// Latency over time, as SVG.
    pub(crate) fn plot(&self) -> String {
        const BLUE: (u8, u8, u8) = (0x1f, 0x5f, 0xa8);
        const RED: (u8, u8, u8) = (0xc0, 0x39, 0x2b);
        type Up = fn(&Moment) -> f64;
        let curve = |name: &str, colour, is_dashed, measured: &Measured, up: Up| {
            let answered = measured.timeline.iter().filter(|moment| moment.answered > 0);
            let points = answered.map(|moment| (moment.second as f64, up(moment))).collect();
            Curve { name: name.to_owned(), colour, is_dashed, points }
        };
        let mut curves = vec![
            curve("median", BLUE, false, &self.measured, |moment| moment.p50_ms),
            curve("99 %", RED, false, &self.measured, |moment| moment.p99_ms),
        ];
        if let Some(echo) = &self.baseline {
            curves.push(curve("echo, median", BLUE, true, echo, |moment| moment.p50_ms));
            curves.push(curve("echo, 99 %", RED, true, echo, |moment| moment.p99_ms));
        }
        let total = &self.measured.total;
        let chart = Chart {
            title: format!("shoal-loadgen {}", self.scenario),
            caption: format!(
                "{}: {:.0} answers/s, {}, {} failed",
                self.of,
                total.answered_per_s,
                rate(total.bytes_per_s),
                total.failed
            ),
            across: "second in which a call was due".to_owned(),
            least_tick: 1.0,
            up: "latency (ms)".to_owned(),
            curves,
        };
        chart.svg()
    }
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed loop"),
            Self::Open { calls_per_s } => write!(f, "open loop, {calls_per_s} calls/s due"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, of, connections, concurrency, measured, .. } = self;
        let addresses = self.targets.len();
        let seconds = measured.seconds;
        writeln!(
            f,
            "{scenario}: {of}; {addresses} {}, {connections} {}, {concurrency} callers, {seconds:.1} s\n",
            plural(addresses as u64, "address", "addresses"),
            plural((*connections).into(), "connection", "connections"),
        )?;
        writeln!(
            f,
            "{:10} {:>10} {:>8} {:>10} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "",
            "answered",
            "failed",
            "per s",
            "",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms"
        )?;
        for (name, figures) in &measured.operations {
            row(f, name, figures)?;
        }
        if measured.operations.len() > 1 {
            row(f, "total", &measured.total)?;
        }
        if let Some(echo) = &self.baseline {
            row(f, "bare echo", &echo.total)?;
            compare(f, &measured.total, &echo.total)?;
        }
        for (code, count) in &measured.total.errors {
            writeln!(f, "{code}: {count}")?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, figures: &Figures) -> fmt::Result {
    let Figures { answered, failed, answered_per_s, latency_ms, .. } = figures;
    let Latency { p50, p90, p99, p999, max, .. } = latency_ms;
    let rate = rate(figures.bytes_per_s);
    writeln!(
        f,
        "{name:10} {answered:>10} {failed:>8} {answered_per_s:>10.0} {rate:>11} {p50:>9.2} {p90:>9.2} {p99:>9.2} {p999:>9.2} {max:>9.2}"
    )
}

/// The ratios to the echo server's figures.
fn compare(f: &mut fmt::Formatter<'_>, these: &Figures, echo: &Figures) -> fmt::Result {
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { f64::NAN };
    let (latency, of_echo) = (&these.latency_ms, &echo.latency_ms);
    writeln!(
        f,
        "{:10} {:>10} {:>8} {:>10.2} {:>11.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
        "of echo",
        "",
        "",
        ratio(these.answered_per_s, echo.answered_per_s),
        ratio(these.bytes_per_s, echo.bytes_per_s),
        ratio(latency.p50, of_echo.p50),
        ratio(latency.p90, of_echo.p90),
        ratio(latency.p99, of_echo.p99),
        ratio(latency.p999, of_echo.p999),
        ratio(latency.max, of_echo.max),
    )
}

/// Bytes a second in a readable unit.
fn rate(bytes_per_s: f64) -> String {
    match bytes_per_s {
        1e9.. => format!("{:.2} GB/s", bytes_per_s / 1e9),
        1e6.. => format!("{:.1} MB/s", bytes_per_s / 1e6),
        _ => format!("{:.0} kB/s", bytes_per_s / 1e3),
    }
}

const fn plural(count: u64, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;
    use crate::record::{Operation, Outcome, Record};

    fn report() -> Report {
        let run = |slower: u64| {
            let mut record = Record::default();
            for number in 1..=1000 {
                let at = Duration::from_millis(2 * number);
                let took = Duration::from_millis(number * slower);
                record.note(Operation::Get, at, took, Outcome::Answered(1_000_000));
            }
            let failed = Outcome::Failed(Code::Unavailable);
            record.note(Operation::Put, Duration::ZERO, Duration::ZERO, failed);
            Run { record, took: Duration::from_secs(2) }
        };
        Report {
            scenario: "kv",
            targets: vec!["10.0.0.1:7071".parse().unwrap()],
            of: Loop::Open { calls_per_s: 500 },
            connections: 1,
            concurrency: 7,
            measured: Measured::new(&run(2)),
            baseline: Some(Measured::new(&run(1))),
        }
    }

    #[test]
    fn percentiles_are_those_of_the_latencies() {
        let latency = report().measured.total.latency_ms;
        let expected = [2.0, 1001.0, 1000.0, 1800.0, 1980.0, 1998.0, 2000.0];
        let Latency { min, mean, p50, p90, p99, p999, max } = latency;
        for (found, expected) in [min, mean, p50, p90, p99, p999, max].into_iter().zip(expected) {
            assert!((found - expected).abs() <= expected / 500.0, "{latency:?}");
        }
    }

    #[test]
    fn the_summary_has_rates_errors_and_ratios() {
        let text = report().to_string();
        for part in [
            "kv: open loop, 500 calls/s due; 1 address, 1 connection, 7 callers, 2.0 s",
            "500.0 MB/s",
            "UNAVAILABLE: 1\n",
            "of echo                              1.00        1.00      2.00",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn json_has_the_same_facts() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["loop"], serde_json::json!({ "kind": "open", "calls_per_s": 500 }));
        let put = &json["measured"]["operations"]["put"];
        assert_eq!(put["errors"]["UNAVAILABLE"], 1);
        assert_eq!(json["measured"]["total"]["answered"], 1000);
        let timeline = json["measured"]["timeline"].as_array().unwrap();
        let answered = timeline.iter().map(|moment| moment["answered"].as_u64().unwrap());
        assert_eq!(answered.collect::<Vec<_>>(), [499, 500, 1]);
    }

    #[test]
    fn a_plot_includes_the_echo_server() {
        let curves = |plot: String| {
            let names = ["median", "99 %", "echo, median", "echo, 99 %"];
            names.iter().filter(|name| plot.lines().any(|line| line.trim() == **name)).count()
        };
        assert_eq!(curves(report().plot()), 4);
        let mut alone = report();
        alone.baseline = None;
        assert_eq!(curves(alone.plot()), 2);
    }
}
