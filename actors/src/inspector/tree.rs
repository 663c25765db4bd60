//! The tree of actors as text: one line each, with box characters. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use super::snapshot::{ActorFacts, Snapshot};
use crate::supervision::registry::parent;

/// Draws a snapshot: name, status, mailbox depth, restarts, and what each actor shows of itself.
pub fn draw(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut open: Vec<&str> = Vec::new();
    for (index, actor) in snapshot.actors.iter().enumerate() {
        let depth = open.iter().take_while(|path| is_below(&actor.path, path)).count();
        open.truncate(depth);
        let rest = &snapshot.actors[index + 1..];
        // A line goes on beside this actor where an elder's sibling is still to come.
        for elder in open.iter().skip(1) {
            text.push_str(if has_sibling(elder, rest) { "│  " } else { "   " });
        }
        if depth > 0 {
            text.push_str(if has_sibling(&actor.path, rest) { "├─ " } else { "└─ " });
        }
        line(&mut text, actor);
        open.push(&actor.path);
    }
    if let Some(omitted) = snapshot.sessions_omitted {
        // A String takes it all.
        let _ = writeln!(text, "… and {omitted} more sessions");
    }
    text
}

fn is_below(path: &str, elder: &str) -> bool {
    path.strip_prefix(elder).is_some_and(|rest| rest.starts_with('/'))
}

fn has_sibling(path: &str, rest: &[ActorFacts]) -> bool {
    rest.iter().any(|other| parent(&other.path) == parent(path))
}

fn line(text: &mut String, actor: &ActorFacts) {
    let name = actor.path.rsplit('/').next().unwrap_or(&actor.path);
    let status = format!("{:?}", actor.status).to_lowercase();
    // A String takes it all.
    let _ = write!(text, "{name}  {status}  mailbox {}  restarts {}", actor.mailbox.depth, actor.restarts_total);
    if let Some(Value::Object(state)) = &actor.state {
        for (key, value) in state.iter().filter(|(_, value)| !value.is_null()) {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = write!(text, "  {key}={shown}");
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::boards::session;
    use crate::wiring::Wiring;

    #[test]
    fn siblings_and_last_children_are_drawn_as_such() {
        let wiring = Wiring::new();
        let rows = ["r", "r/a", "r/a/x", "r/a/y", "r/b", "r/b/z"]
            .map(|path| wiring.actors.session(path.to_owned(), Arc::new(session::board())));
        let text = draw(&Snapshot::take(0, &wiring, Duration::MAX));
        let names: Vec<_> = text.lines().map(|line| line.split("  starting").next().unwrap_or_default()).collect();
        assert_eq!(names, ["r", "├─ a", "│  ├─ x", "│  └─ y", "└─ b", "   └─ z"]);
        assert!(text.starts_with("r  starting  mailbox 0  restarts 0  phase=tokenizing  resumed=0\n"), "{text}");
        drop(rows);
    }
}
