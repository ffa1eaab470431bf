//! What went wrong, in the words of cel-go.

use ::cel::{ExecutionError, ParseErrors, Value};

/// An error of a run.
pub(super) fn of(error: &ExecutionError) -> String {
    match error {
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedIndex(..) => "no such overload".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("no such attribute(s): {name}"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(Value::Int(at)) => format!("index out of bounds: {at}"),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_owned(),
        other => other.to_string(),
    }
}

/// Errors of a source that could not be read, each with its line and a mark below where it is.
pub(super) fn of_parsing(errors: &ParseErrors, source: &str) -> String {
    let shown: Vec<String> = errors
        .errors
        .iter()
        .map(|error| {
            let (line, column) =
                (usize::try_from(error.pos.0).unwrap_or(0), usize::try_from(error.pos.1).unwrap_or(0));
            at(source, line.max(1), column.max(1), &error.msg)
        })
        .collect();
    shown.join("\n")
}

/// One error: its place, counted from 1, and the line with a mark.
pub(super) fn at(source: &str, line: usize, column: usize, message: &str) -> String {
    let text = source.lines().nth(line - 1).unwrap_or("");
    let dots = ".".repeat(column - 1);
    format!("ERROR: <input>:{line}:{column}: {message}\n | {text}\n | {dots}^")
}
