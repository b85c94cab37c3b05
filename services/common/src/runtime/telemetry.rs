//! Logs to stderr, and traces to an OpenTelemetry collector if one is configured.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal as _},
};

use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
pub use tracing::level_filters::LevelFilter;
use tracing::{
    Level, Metadata,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    field::RecordFields,
    filter::filter_fn,
    fmt::{self, FormatFields, format::Writer},
    layer::SubscriberExt as _,
    util::{SubscriberInitExt as _, TryInitError},
};

use crate::text::Printable;

/// The variable that names the collector of traces, over gRPC.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The settings of a service's logs, its section `log`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// The format of a line.
    pub format: LogFormat,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&str")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line, for collectors.
    Json,
}

crate::as_word!(LogFormat { Human = "human", Json = "json" });

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is not a valid filter.
    #[error("RUST_LOG is not a log filter")]
    Filter(#[from] tracing_subscriber::filter::FromEnvError),
    /// The collector's address cannot be used.
    #[error("{ENDPOINT} cannot be used")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The thread that sends traces cannot be started.
    #[error("the thread that sends traces cannot be started")]
    Thread(#[from] io::Error),
    /// It was set up before.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Sends the remaining traces when it is dropped; keep it until the end of `main`.
#[must_use = "traces are sent only while it lives"]
#[derive(Debug)]
pub struct Telemetry(Option<Exporting>);

/// Traces on their way to the collector, from a thread of their own: in a process with one thread,
/// waiting for them at the end would be a deadlock.
#[derive(Debug)]
struct Exporting {
    provider: SdkTracerProvider,
    runtime: Runtime,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let Some(Exporting { provider, runtime }) = self.0.take() else { return };
        if let Err(error) = provider.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
        runtime.shutdown_background();
    }
}

/// Starts logging, at `level` unless `RUST_LOG` says otherwise, and tracing, independent of the log
/// level, if the variable `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector.
pub fn init(
    service: &'static str,
    log: &Log,
    level: LevelFilter,
) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env()?;
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match log.format {
        LogFormat::Human => lines.fmt_fields(SafeFields).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let lines = lines.with_filter(filter);
    let exporting = export(service)?;
    let spans = exporting.as_ref().map(|Exporting { provider, .. }| {
        // Spans of the exporter's own connection would themselves be exported, forever.
        let is_ours = |metadata: &Metadata<'_>| {
            metadata.target().starts_with("shoal") && *metadata.level() <= Level::INFO
        };
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("shoal"))
            .with_filter(filter_fn(is_ours))
    });
    tracing_subscriber::registry().with(lines).with(spans).try_init()?;
    Ok(Telemetry(exporting))
}

/// Fields as `name=value`, whose values often come from strangers.
struct SafeFields;

impl<'writer> FormatFields<'writer> for SafeFields {
    fn format_fields<R: RecordFields>(
        &self,
        writer: Writer<'writer>,
        fields: R,
    ) -> std::fmt::Result {
        let mut line = Line { writer, begun: false, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    begun: bool,
    result: std::fmt::Result,
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let space = if self.begun { " " } else { "" };
        self.begun = true;
        let mut writer = Printable(&mut self.writer);
        let written = match field.name() {
            "message" => write!(writer, "{space}{value:?}"),
            name => write!(writer, "{space}{name}={value:?}"),
        };
        self.result = self.result.and(written);
    }
}

fn export(service: &'static str) -> Result<Option<Exporting>, TelemetryError> {
    if env::var_os(ENDPOINT).is_none_or(|endpoint| endpoint.is_empty()) {
        return Ok(None);
    }
    global::set_text_map_propagator(TraceContextPropagator::new());
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let exporter = {
        let _within = runtime.enter();
        SpanExporter::builder().with_tonic().build()?
    };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    Ok(Some(Exporting { provider, runtime }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lock::Mutex;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_logged_stays_on_its_line_and_is_no_command() {
        let written = Written::default();
        let to = written.clone();
        let lines = fmt::layer().with_writer(move || to.clone()).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(lines.fmt_fields(SafeFields));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("call", peer = "a\u{1b}[2Jb");
            let error = io::Error::other("no\nERROR shoal: all is lost \u{202e}");
            span.in_scope(|| {
                tracing::warn!(%error, name = ?"x", count = 3, told = "\r\u{9b}", "message");
            });
        });
        let written = String::from_utf8(written.0.lock().clone()).expect("text");
        assert_eq!(written.matches('\n').count(), 1, "{written}");
        assert!(!written.trim_end().contains(char::is_control), "{written}");
        assert!(
            written.contains(
                r#"message error=no\u{a}ERROR shoal: all is lost \u{202e} name="x" count=3"#
            ),
            "{written}"
        );
        assert!(written.contains(r"peer=") && written.contains(r"[2Jb"), "{written}");
    }
}
