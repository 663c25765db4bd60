//! The store against a list that is searched from end to end.

use proptest::prelude::*;

use super::*;

fn key(number: u8) -> Key {
    Key::of_bytes([number; 32])
}

fn limits(entries: usize) -> Limits {
    Limits { entries, bytes: None, threshold: 1.0, ttl: None }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut store = Store::new(limits(2));
    store.insert(key(1), 1, 0, at(0));
    store.insert(key(2), 2, 0, at(1));
    assert_eq!(store.get(&key(1), at(2)), Some(&1));
    assert_eq!(store.insert(key(3), 3, 0, at(3)), 1);
    assert_eq!([1, 2, 3].map(|number| store.get(&key(number), at(4)).copied()), [Some(1), None, Some(3)]);
}

#[test]
fn room_is_made_down_to_the_threshold_at_once_when_full_and_by_the_sweep_when_over_it() {
    let mut store = Store::new(Limits { threshold: 0.5, ..limits(8) });
    let evicted: Vec<_> = (0..9).map(|number| store.insert(key(number), number, 0, at(0))).collect();
    assert_eq!(evicted, [0, 0, 0, 0, 0, 0, 0, 0, 5]);
    assert_eq!((store.len(), store.sweep(at(0))), (4, 0));
    store.insert(key(20), 20, 0, at(0));
    assert_eq!((store.sweep(at(0)), store.len()), (1, 4));
}

#[test]
fn what_is_too_old_is_not_found_and_goes_with_the_sweep() {
    let mut store = Store::new(Limits { ttl: Some(at(10)), ..limits(8) });
    store.insert(key(1), 1, 5, at(0));
    store.insert(key(2), 2, 5, at(5));
    // Being used makes nothing younger.
    assert_eq!(store.get(&key(1), at(9)), Some(&1));
    assert_eq!(store.get(&key(1), at(10)), None);
    assert_eq!((store.sweep(at(15)), store.len(), store.value_bytes), (0, 0, 0));
}

#[test]
fn a_value_that_no_room_can_be_made_for_is_not_kept() {
    let mut store = Store::new(Limits { bytes: Some(1000), ..limits(8) });
    store.insert(key(1), 1, 10, at(0));
    assert_eq!(store.insert(key(2), 2, 1001, at(0)), 0);
    assert_eq!((store.len(), store.get(&key(1), at(0))), (1, Some(&1)));
    let mut none = Store::new(limits(0));
    none.insert(key(1), 1, 0, at(0));
    assert!(none.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u8, usize),
    Get(u8),
    Sweep,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..40_u8, 0..3000_usize).prop_map(|(key, bytes)| Step::Insert(key, bytes)),
        4 => (0..40_u8).prop_map(Step::Get),
        1 => Just(Step::Sweep),
        1 => (1..20_u64).prop_map(Step::Wait),
    ]
}

/// What is kept, by last use: key, value, when it was kept.
type Model = Vec<(u8, usize, u64)>;

/// Checks that what is gone from the store is what was used longest ago, and takes it out of the model too.
fn evict(model: &mut Model, store: &Store<usize>) {
    let gone = model.len() - store.len();
    let kept: Vec<_> = model.iter().map(|(number, ..)| store.places.contains_key(&key(*number))).collect();
    assert!(kept[..gone].iter().all(|kept| !kept) && kept[gone..].iter().all(|kept| *kept), "{kept:?}");
    model.drain(..gone);
}

proptest! {
    #[test]
    fn does_what_a_list_would(
        steps in prop::collection::vec(step(), 1..200),
        entries in 1..30_usize,
        bytes in prop::option::of(4000..40_000_usize),
        threshold in 0.3..=1.0,
        ttl in prop::option::of(5..50_u64),
    ) {
        let limits = Limits { entries, bytes, threshold, ttl: ttl.map(at) };
        let (mut store, mut model, mut now) = (Store::new(limits), Model::new(), 0);
        let is_young = |kept_at: u64, now: u64| ttl.is_none_or(|ttl| now - kept_at < ttl);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Get(wanted) => {
                    let found = model.iter().position(|(key, ..)| *key == wanted).map(|place| model.remove(place));
                    let found = found.filter(|(_, _, kept_at)| is_young(*kept_at, now));
                    prop_assert_eq!(store.get(&key(wanted), at(now)).copied(), found.map(|(_, value, _)| value));
                    model.extend(found);
                }
                Step::Insert(wanted, size) => {
                    model.retain(|(key, ..)| *key != wanted);
                    model.push((wanted, number, now));
                    store.insert(key(wanted), number, size, at(now));
                    evict(&mut model, &store);
                }
                Step::Sweep => {
                    model.retain(|(_, _, kept_at)| is_young(*kept_at, now));
                    store.sweep(at(now));
                    evict(&mut model, &store);
                    prop_assert!(!store.is_over(threshold) || store.is_empty());
                }
            }
            prop_assert_eq!(store.len(), model.len());
            prop_assert!(store.len() <= entries);
            prop_assert!(store.len() == 1 || bytes.is_none_or(|most| store.bytes() <= most));
        }
    }
}
