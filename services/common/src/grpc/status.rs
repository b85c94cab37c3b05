//! Refusals: errors as gRPC statuses with details, and back as words.

use std::{error::Error, fmt::Display, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::text::printable;

/// All errors of a request, field by field, so that the caller learns all of them at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// Adds an error of `field`.
    pub fn add(&mut self, field: &str, description: impl Display) {
        self.0.push(FieldViolation::new(field, description.to_string()));
    }

    /// The value, or an error of `field`.
    pub fn take<T, E: Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error)).ok()
    }

    /// The text, or an error if `field` is too long.
    pub fn short(&mut self, field: &str, text: String, max_bytes: usize) -> Option<String> {
        let bytes = text.len();
        let short = (bytes <= max_bytes).then_some(text);
        self.take(field, short.ok_or_else(|| format!("at most {max_bytes} bytes, not {bytes}")))
    }

    /// INVALID_ARGUMENT with a `BadRequest` detail, if there is an error.
    pub fn refuse(self) -> Result<(), Status> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into()) }
    }
}

impl From<Violations> for Status {
    fn from(Violations(violations): Violations) -> Self {
        let message = violations
            .iter()
            .map(|violation| format!("{}: {}", violation.field, violation.description))
            .collect::<Vec<_>>()
            .join("; ");
        Self::with_error_details(
            Code::InvalidArgument,
            message,
            ErrorDetails::with_bad_request(violations),
        )
    }
}

/// RESOURCE_EXHAUSTED: a limit is reached; the caller may retry later.
pub fn exhausted(message: impl Into<String>, retry_after: Duration) -> Status {
    retry(Code::ResourceExhausted, message, retry_after)
}

/// UNAVAILABLE: the caller may retry later.
pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Status {
    retry(Code::Unavailable, message, retry_after)
}

/// Why a call failed: the message of the other side, or of the layer that failed. It is safe to
/// print.
pub fn words(status: &Status) -> String {
    let words = match status.source() {
        Some(source) => innermost(source),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    };
    printable(&words).into_owned()
}

/// The root cause, in words.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn retry(code: Code, message: impl Into<String>, after: Duration) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_named_in_one_answer() {
        let mut violations = Violations::default();
        violations.add("content_id", "is missing");
        assert_eq!(violations.short("name", "x".repeat(300), 255), None);
        assert_eq!(violations.short("zone", "a".to_owned(), 63), Some("a".to_owned()));
        assert_eq!(violations.take("numwant", "x".parse::<u32>()), None);
        let status = violations.refuse().expect_err("three fields are wrong");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("name: at most 255 bytes, not 300"));
        let details = status.get_details_bad_request().expect("a detail");
        let fields: Vec<_> = details.field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["content_id", "name", "numwant"]);
    }

    #[test]
    fn a_request_without_faults_passes() {
        assert!(Violations::default().refuse().is_ok());
    }

    #[test]
    fn who_meets_a_limit_learns_when_to_come_back() {
        let after = Duration::from_secs(3);
        for (status, code) in [
            (exhausted("no slot is free", after), Code::ResourceExhausted),
            (unavailable("still reading", after), Code::Unavailable),
        ] {
            assert_eq!(status.code(), code);
            let details = status.get_details_retry_info().expect("a detail");
            assert_eq!(details.retry_delay, Some(after));
        }
    }
}
