//! Quotas, and when to come back.

use super::*;

const ORDINARY: Claim =
    Claim { tenant: TenantId::NOBODY, priority: 0, count: 1, patience: Duration::MAX, time_left: Duration::MAX };

fn limits(max_queue: u32) -> AdmissionLimits {
    AdmissionLimits { max_queue, per_tenant: None, running: 1 }
}

fn refusal(result: Result<Vec<Permit>, Refusal>) -> Refusal {
    result.expect_err("it is refused")
}

#[test]
fn permits_are_taken_all_or_none_and_come_back() {
    let admission = Admission::new(limits(3));
    let two = admission.try_acquire(Claim { count: 2, ..ORDINARY }).expect("free");
    assert!(matches!(refusal(admission.try_acquire(Claim { count: 2, ..ORDINARY })), Refusal::Full { limit: 3, .. }));
    assert_eq!(admission.in_use(), 2);
    drop(two);
    assert_eq!(admission.in_use(), 0);
    assert_eq!(refusal(admission.try_acquire(Claim { count: 4, ..ORDINARY })), Refusal::Never { limit: 3 });
}

#[test]
fn a_check_says_what_a_claim_would_get_and_takes_nothing() {
    let admission = Admission::new(limits(2));
    assert_eq!(admission.check(Claim { count: 2, ..ORDINARY }), Ok(()));
    assert_eq!(admission.in_use(), 0);
    let _all = admission.try_acquire(Claim { count: 2, ..ORDINARY }).expect("free");
    assert!(matches!(admission.check(ORDINARY), Err(Refusal::Full { limit: 2, .. })));
    assert_eq!(admission.check(Claim { priority: -1, ..ORDINARY }), Ok(()), "there is a reserve");
}

#[test]
fn better_classes_have_a_tenth_more_and_worse_ones_a_tenth_less_but_at_least_one() {
    let urgent = Claim { priority: -1, ..ORDINARY };
    let relaxed = Claim { priority: 1, ..ORDINARY };
    for (max_queue, reserve) in [(3, 1), (40, 4)] {
        let admission = Admission::new(limits(max_queue));
        let mut held = Vec::new();
        // The worst come first, as many as they like.
        for (class, count) in [(relaxed, max_queue - reserve), (ORDINARY, reserve), (urgent, reserve)] {
            let mut granted = std::iter::from_fn(|| admission.try_acquire(class).ok()).collect::<Vec<_>>();
            assert_eq!(granted.len() as u32, count, "{class:?} of {max_queue}");
            held.append(&mut granted);
        }
        held.pop();
        for class in [relaxed, ORDINARY] {
            assert!(matches!(refusal(admission.try_acquire(class)), Refusal::Full { .. }), "the reserve is the best's");
        }
    }
    let smallest = Admission::new(limits(1));
    assert!(smallest.try_acquire(relaxed).is_ok(), "nobody is locked out");
}

#[test]
fn a_tenant_holds_its_share_and_no_more_whatever_its_class() {
    let admission = Admission::new(AdmissionLimits { per_tenant: Some(2), ..limits(4) });
    let (one, other) = (Claim { tenant: TenantId(1), ..ORDINARY }, Claim { tenant: TenantId(2), ..ORDINARY });
    let held = admission.try_acquire(Claim { count: 2, ..one }).expect("its share");
    assert!(matches!(refusal(admission.try_acquire(one)), Refusal::OverQuota { limit: 2, .. }));
    assert!(matches!(refusal(admission.try_acquire(Claim { priority: -5, ..one })), Refusal::OverQuota { .. }));
    assert_eq!(refusal(admission.try_acquire(Claim { count: 3, ..other })), Refusal::Never { limit: 2 });
    let _others = admission.try_acquire(Claim { count: 2, ..other }).expect("its share");
    drop(held);
    assert!(admission.try_acquire(one).is_ok());
    assert!(admission.try_acquire(Claim { count: 2, ..ORDINARY }).is_ok(), "nobody in particular has no share");
}

/// A book after `ends` requests that ended one every `step`, with `waiting` requests beside the running one.
fn book(step: Duration, ends: u32, waiting: u32, start: Instant) -> (Book, Instant) {
    let mut book = Book::new(limits(waiting + 1));
    book.take(Claim { count: waiting + 1, ..ORDINARY }, start).expect("free");
    let mut now = start;
    for _ in 0..ends {
        now += step;
        book.give_back(TenantId::NOBODY, 0, End::Answered, now);
        book.take(ORDINARY, now).expect("just given back");
    }
    (book, now)
}

fn retry_after(book: &mut Book, now: Instant) -> f64 {
    match book.take(ORDINARY, now) {
        Err(Refusal::Full { retry_after, .. }) => retry_after.as_secs_f64(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_wait_is_what_is_queued_at_the_rate_at_which_requests_end() {
    let start = Instant::now();
    for ends in [20, 1000] {
        let (mut book, now) = book(Duration::from_millis(100), ends, 40, start);
        let wait = retry_after(&mut book, now);
        assert!((3.5..4.5).contains(&wait), "40 at 10 per second: {wait} s after {ends} ends");
    }
    let (mut quick, now) = book(Duration::from_millis(1), 1000, 40, start);
    assert_eq!(retry_after(&mut quick, now), 1.0);
    let (mut slow, now) = book(Duration::from_secs(30), 10, 40, start);
    assert_eq!(retry_after(&mut slow, now), 60.0);
}

#[test]
fn the_wait_grows_while_nothing_ends_and_idle_time_does_not_count() {
    let start = Instant::now();
    let (mut stuck, now) = book(Duration::from_millis(100), 100, 40, start);
    let before = retry_after(&mut stuck, now);
    assert!(retry_after(&mut stuck, now + Duration::from_secs(40)) > 2.0 * before);

    let (mut idle, now) = book(Duration::from_millis(100), 100, 40, start);
    (0..41).for_each(|_| idle.give_back(TenantId::NOBODY, 0, End::Answered, now));
    let later = now + Duration::from_secs(3600);
    idle.take(Claim { count: 41, ..ORDINARY }, later).expect("free");
    assert!(retry_after(&mut idle, later) <= before);
}

#[test]
fn a_tenant_over_its_share_waits_for_its_part_of_the_rate() {
    let start = Instant::now();
    let mut book = Book::new(AdmissionLimits { max_queue: 100, per_tenant: Some(20), running: 0 });
    let (one, other) = (Claim { tenant: TenantId(1), ..ORDINARY }, Claim { tenant: TenantId(2), ..ORDINARY });
    book.take(Claim { count: 20, ..one }, start).expect("free");
    book.take(Claim { count: 1, ..other }, start).expect("free");
    let mut now = start;
    for _ in 0..50 {
        now += Duration::from_millis(200);
        book.give_back(TenantId(2), 0, End::Answered, now);
        book.take(other, now).expect("just given back");
    }
    match book.take(one, now) {
        Err(Refusal::OverQuota { limit: 20, retry_after }) => {
            assert!((7.0..9.0).contains(&retry_after.as_secs_f64()), "20 at half of 5 per second: {retry_after:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Permits for whoever asks with this much patience.
fn patient(seconds: u64) -> Claim {
    Claim { patience: Duration::from_secs(seconds), ..ORDINARY }
}

fn too_long(result: Result<(), Refusal>) -> f64 {
    match result {
        Err(Refusal::TooLong { retry_after, .. }) => retry_after.as_secs_f64(),
        other => panic!("{other:?}"),
    }
}

/// One runs, 40 wait, one is answered every 500 ms, and there is room for more.
fn busy_book() -> (Book, Instant) {
    let start = Instant::now();
    let mut book = Book::new(limits(100));
    book.take(Claim { count: 41, ..ORDINARY }, start).expect("free");
    let mut now = start;
    for _ in 0..100 {
        now += Duration::from_millis(500);
        book.give_back(TenantId::NOBODY, 0, End::Answered, now);
        book.take(ORDINARY, now).expect("just given back");
    }
    (book, now)
}

#[test]
fn whoever_would_wait_longer_than_he_has_patience_for_is_refused_at_once() {
    let (mut book, now) = busy_book();
    let retry_after = too_long(book.take(patient(5), now));
    assert!((14.0..16.0).contains(&retry_after), "its turn is the 41st, at 2 per second: {retry_after}");
    assert_eq!(book.in_use(), 41);
    book.take(patient(21), now).expect("it has the patience");
    book.take(Claim { priority: -1, ..patient(0) }, now).expect("nobody goes before it");
    book.take(Claim { tenant: TenantId(7), ..patient(1) }, now).expect("another tenant's queue is not its own");
    assert!(too_long(book.take(Claim { priority: 1, ..patient(20) }, now)) >= 1.0);
}

/// A permit for whoever wants the whole answer within so many seconds.
fn due_in(seconds: u64) -> Claim {
    Claim { time_left: Duration::from_secs(seconds), ..patient(seconds / 2) }
}

/// After so many rounds of four at a time, for ten seconds each.
fn book_of_four(rounds: u64, begun: Instant) -> Book {
    let after = |seconds: u64| begun + Duration::from_secs(seconds);
    let mut book = Book::new(AdmissionLimits { running: 4, ..limits(100) });
    for round in 0..rounds {
        book.take(Claim { count: 4, ..ORDINARY }, after(10 * round)).expect("free");
        (0..4).for_each(|_| book.give_back(TenantId::NOBODY, 0, End::Answered, after(10 * round + 10)));
    }
    book
}

#[test]
fn whoever_comes_just_after_all_places_were_taken_has_no_time_left_for_an_answer() {
    let begun = Instant::now();
    let after = |seconds: u64| begun + Duration::from_secs(seconds);
    // The last four have just begun.
    let full_at_30 = || {
        let mut book = book_of_four(3, begun);
        book.take(Claim { count: 4, ..ORDINARY }, after(30)).expect("free");
        book
    };
    let mut book = full_at_30();
    assert!(too_long(book.take(due_in(20), after(30))) >= 1.0, "a place at 40 s, an answer at 50 s");
    too_long(book.take(due_in(20), after(31)));
    book.take(due_in(20), after(33)).expect("an answer at 50 s is not too late");
    book.take(due_in(60), after(33)).expect("it has time");
    let mut book = full_at_30();
    too_long(book.take(due_in(12), after(36)));
    book.take(due_in(12), after(38)).expect("half of its patience it has in any case: it may want less than others do");
}

#[test]
fn what_is_served_from_elsewhere_makes_no_answer_look_shorter() {
    let begun = Instant::now();
    let after = |seconds: u64| begun + Duration::from_secs(seconds);
    let mut book = Book::new(AdmissionLimits { running: 16, ..limits(100) });
    book.take(Claim { count: 10, ..ORDINARY }, begun).expect("free");
    for second in 1..30 {
        book.take(ORDINARY, after(second)).expect("free");
        book.set_wants_place(TenantId::NOBODY, 0, false, after(second));
        book.give_back(TenantId::NOBODY, 0, End::Elsewhere, after(second));
    }
    (0..10).for_each(|_| book.give_back(TenantId::NOBODY, 0, End::Answered, after(30)));
    assert_eq!(book.time_of_an_answer(), Duration::from_secs(30));
}

#[test]
fn all_of_a_claim_must_be_answered_in_time_and_another_tenant_frees_no_place() {
    let begun = Instant::now();
    let mut book = book_of_four(2, begun);
    let now = begun + Duration::from_secs(20);
    book.take(Claim { count: 2, ..ORDINARY }, now).expect("free");
    too_long(book.take(Claim { count: 4, ..due_in(15) }, now));
    book.take(Claim { count: 2, ..due_in(15) }, now).expect("two places are free");
    too_long(book.take(Claim { tenant: TenantId(7), ..due_in(12) }, now));
    book.take(Claim { tenant: TenantId(7), ..due_in(60) }, now).expect("it is next, and has time");
}

#[test]
fn closed_places_are_counted_as_waiting() {
    let start = Instant::now();
    let mut book = Book::new(AdmissionLimits { running: 16, ..limits(100) });
    book.set_places(1, start);
    book.take(Claim { count: 16, ..ORDINARY }, start).expect("free");
    let mut now = start;
    for _ in 0..20 {
        now += Duration::from_secs(5);
        book.give_back(TenantId::NOBODY, 0, End::Answered, now);
        book.take(ORDINARY, now).expect("just given back");
    }
    assert!((45.0..60.0).contains(&too_long(book.take(patient(30), now))), "16 go first, one every 5 s");
    book.set_places(16, now);
    book.take(patient(6), now).expect("all open: it is the first that waits, for 5 s at most");
}

#[test]
fn requests_that_came_to_nothing_are_no_sign_of_speed() {
    let (mut book, mut now) = busy_book();
    for _ in 0..200 {
        now += Duration::from_millis(100);
        book.give_back(TenantId::NOBODY, 0, End::Lost, now);
        book.take(ORDINARY, now).expect("just given back");
    }
    too_long(book.take(patient(21), now));
}

#[test]
fn nobody_is_refused_for_lack_of_patience_while_nothing_is_known_or_nobody_waits() {
    let start = Instant::now();
    let mut book = Book::new(AdmissionLimits { running: 4, ..limits(100) });
    book.take(Claim { count: 50, ..ORDINARY }, start).expect("free");
    let mut now = start + Duration::from_secs(60);
    for _ in 0..3 {
        book.give_back(TenantId::NOBODY, 0, End::Answered, now);
        book.take(patient(0), now).expect("the first round is not over");
    }
    book.give_back(TenantId::NOBODY, 0, End::Answered, now);
    too_long(book.take(patient(0), now));
    // Nothing is answered any more, and the deadlines of all pass: others must get their chance.
    now += Duration::from_secs(3600);
    (0..46).for_each(|_| book.give_back(TenantId::NOBODY, 0, End::Lost, now));
    book.take(patient(0), now).expect("there is a place for it");
}

#[test]
fn light_use_is_not_taken_for_low_capacity() {
    let mut book = Book::new(AdmissionLimits { running: 16, ..limits(1000) });
    let mut now = Instant::now();
    for _ in 0..500 {
        book.take(ORDINARY, now).expect("free");
        now += Duration::from_secs(2);
        book.give_back(TenantId::NOBODY, 0, End::Answered, now);
    }
    book.take(Claim { count: 400, ..ORDINARY }, now).expect("free");
    book.take(patient(100), now).expect("sixteen at once answer the 384 before it in 50 s");
    too_long(book.take(patient(20), now));
}

#[test]
fn those_that_want_no_place_go_before_nobody() {
    let (mut book, now) = busy_book();
    book.take(Claim { count: 20, ..ORDINARY }, now).expect("free");
    too_long(book.take(patient(21), now));
    (0..20).for_each(|_| book.set_wants_place(TenantId::NOBODY, 0, false, now));
    book.take(patient(21), now).expect("as if they were not there");

    let admission = Admission::new(limits(3));
    let mut permits = admission.try_acquire(Claim { count: 3, ..ORDINARY }).expect("free");
    permits.iter_mut().for_each(|permit| permit.set_wants_place(false));
    assert_eq!(admission.in_use(), 3, "they are in the system all the same");
    permits[0].set_wants_place(true);
    drop(permits);
    assert_eq!(admission.in_use(), 0);
}
