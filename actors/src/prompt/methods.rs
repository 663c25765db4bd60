//! Methods of Python's strings, lists and dictionaries: `minijinja-contrib`'s, and those that it lacks.

use minijinja::value::{Tuple, Value, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// Calls a method that the value itself does not have.
///
/// # Errors
/// If there is none of this name, or its arguments do not fit.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match pycompat::unknown_method_callback(state, value, method, args) {
        Err(error) if error.kind() == ErrorKind::UnknownMethod => match value.as_str() {
            Some(text) => string_method(text, method, args),
            None => Err(error),
        },
        result => result,
    }
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "removeprefix" => with_text(args, |prefix| text.strip_prefix(prefix).unwrap_or(text).into()),
        "removesuffix" => with_text(args, |suffix| text.strip_suffix(suffix).unwrap_or(text).into()),
        "partition" => with_text(args, |mark| triple(text.split_once(mark), mark, (text, "", ""))),
        "rpartition" => with_text(args, |mark| triple(text.rsplit_once(mark), mark, ("", "", text))),
        "rsplit" => {
            let (mark, most): (&str, Option<usize>) = from_args(args)?;
            Ok(rsplit(text, mark, most))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn with_text(args: &[Value], method: impl FnOnce(&str) -> Value) -> Result<Value, Error> {
    let (argument,): (&str,) = from_args(args)?;
    Ok(method(argument))
}

fn triple(found: Option<(&str, &str)>, mark: &str, missing: (&str, &str, &str)) -> Value {
    let (before, mark, after) = found.map_or(missing, |(before, after)| (before, mark, after));
    Value::from(Tuple::from([Value::from(before), Value::from(mark), Value::from(after)]))
}

fn rsplit(text: &str, mark: &str, most: Option<usize>) -> Value {
    let mut pieces: Vec<&str> = match most {
        Some(most) => text.rsplitn(most.saturating_add(1), mark).collect(),
        None => text.rsplit(mark).collect(),
    };
    pieces.reverse();
    pieces.into_iter().map(Value::from).collect()
}
