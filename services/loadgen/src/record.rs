//! What is remembered of calls: how long they took, how many bytes they brought, how they failed.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use tonic::Code;

/// Digits of a latency that are kept, of all calls and of those of one second.
const DIGITS: u8 = 3;
const DIGITS_OF_SECOND: u8 = 2;

/// A latency above this counts as this, so that histograms stay small.
const LONGEST: Duration = Duration::from_secs(3600);

/// What stands for a call that never began, beside the codes of gRPC.
pub(crate) const NOT_BEGUN: &str = "NOT_BEGUN";

/// What is called.
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
    /// With an answer of so many bytes.
    Answered(u64),
    /// With a code.
    Failed(Code),
    /// It was due, and no caller was free until the end.
    NotBegun,
}

/// All that is known of a run.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) operations: BTreeMap<Operation, Calls>,
    /// By the second in which a call was due.
    pub(crate) seconds: BTreeMap<u64, Second>,
}

/// The calls of one kind.
#[derive(Debug)]
pub(crate) struct Calls {
    /// Of those answered, in microseconds.
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
    /// How many ended without an answer.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl Record {
    /// Notes a call that was due `at` after the start and took so long from then on.
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
                calls.latency.record(micros).expect("it grows as is needed");
                calls.bytes += bytes;
                second.latency.record(micros).expect("it grows as is needed");
                second.bytes += bytes;
                return;
            }
            Outcome::Failed(code) => name_of(code),
            Outcome::NotBegun => NOT_BEGUN,
        };
        *calls.errors.entry(code).or_default() += 1;
        second.errors += 1;
    }

    /// Calls that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.operations.values().map(|calls| calls.latency.len()).sum()
    }

    /// All calls in one.
    pub(crate) fn total(&self) -> Calls {
        let mut total = Calls::default();
        for calls in self.operations.values() {
            total.latency.add(&calls.latency).expect("it grows as is needed");
            total.bytes += calls.bytes;
            for (code, count) in &calls.errors {
                *total.errors.entry(code).or_default() += count;
            }
        }
        total
    }
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new(digits).expect("so few digits are possible")
}

/// A code as gRPC spells it.
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
