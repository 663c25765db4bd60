//! The known name nearest to an unknown one.

use strsim::{damerau_levenshtein, normalized_damerau_levenshtein};

use super::sections::SECTIONS;

/// The key or section that an unknown path most likely means, if any is near.
pub(super) fn nearest(path: &str) -> Option<&'static str> {
    let path = path.to_lowercase().replace('-', "_");
    names().map(|name| (distance(&path, name), name)).min_by_key(|(distance, _)| *distance).and_then(
        |(distance, name)| {
            let near = distance <= name.len().max(path.len()) / 3;
            near.then_some(name)
        },
    )
}

/// All paths of keys and sections.
fn names() -> impl Iterator<Item = &'static str> {
    let keys = SECTIONS.iter().copied().flatten();
    keys.flat_map(|key| [key.path, key.section()])
}

/// Edits between two paths; a right last part under a wrong section counts as two.
fn distance(path: &str, name: &str) -> usize {
    let edits = damerau_levenshtein(path, name);
    let (leaf, known) = (last_part(path), last_part(name));
    if leaf == known {
        edits.min(2)
    } else if normalized_damerau_levenshtein(leaf, known) > 0.7 {
        edits.min(2 + damerau_levenshtein(leaf, known))
    } else {
        edits
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
