//! The record of a run: latencies, bytes and errors of its calls.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use tonic::Code;

/// Significant digits of latencies: of all calls, and of those of one second.
const DIGITS: u8 = 3;
const DIGITS_OF_SECOND: u8 = 2;

/// Longer latencies are recorded as this one, so that histograms stay small.
const LONGEST: Duration = Duration::from_secs(3600);

/// The error of a call that never began; the others have codes of gRPC.
pub(crate) const NOT_BEGUN: &str = "NOT_BEGUN";

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Announce,
    Lookup,
    Get,
    Put,
    Pieces,
    Echo,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With an answer of this many bytes.
    Answered(u64),
    /// With a code.
    Failed(Code),
    /// It was due, but no caller was free until the end.
    NotBegun,
}

/// The record of a run.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) operations: BTreeMap<Operation, Calls>,
    /// By the second in which a call was due.
    pub(crate) seconds: BTreeMap<u64, Second>,
}

/// The calls of one kind.
#[derive(Debug)]
pub(crate) struct Calls {
    /// Of the calls that were answered, in microseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) bytes: u64,
    pub(crate) errors: BTreeMap<&'static str, u64>,
}

/// The calls of one second.
#[derive(Debug)]
pub(crate) struct Second {
    pub(crate) latency: Histogram<u64>,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
}

impl Operation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Lookup => "lookup",
            Self::Get => "get",
            Self::Put => "put",
            Self::Pieces => "pieces",
            Self::Echo => "echo",
        }
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self { latency: histogram(DIGITS), bytes: 0, errors: BTreeMap::new() }
    }
}

impl Default for Second {
    fn default() -> Self {
        Self { latency: histogram(DIGITS_OF_SECOND), bytes: 0, errors: 0 }
    }
}

impl Calls {
    /// The number of calls without an answer.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl Record {
    /// Records a call that was due `at` after the start and ended `took` later.
    pub(crate) fn note(
        &mut self,
        operation: Operation,
        at: Duration,
        took: Duration,
        outcome: Outcome,
    ) {
        let calls = self.operations.entry(operation).or_default();
        let second = self.seconds.entry(at.as_secs()).or_default();
        let micros = took.min(LONGEST).as_micros() as u64;
        let code = match outcome {
            Outcome::Answered(bytes) => {
                calls.latency.record(micros).expect("it grows as needed");
                calls.bytes += bytes;
                second.latency.record(micros).expect("it grows as needed");
                second.bytes += bytes;
                return;
            }
            Outcome::Failed(code) => name_of(code),
            Outcome::NotBegun => NOT_BEGUN,
        };
        *calls.errors.entry(code).or_default() += 1;
        second.errors += 1;
    }

    /// The number of calls that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.operations.values().map(|calls| calls.latency.len()).sum()
    }

    /// The calls of all kinds together.
    pub(crate) fn total(&self) -> Calls {
        let mut total = Calls::default();
        for calls in self.operations.values() {
            total.latency.add(&calls.latency).expect("it grows as needed");
            total.bytes += calls.bytes;
            for (code, count) in &calls.errors {
                *total.errors.entry(code).or_default() += count;
            }
        }
        total
    }
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new(digits).expect("it supports up to 5 digits")
}

/// The name of a code in gRPC.
const fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
