//! Quotas, and when to come back.

use super::*;

const ORDINARY: Claim = Claim { tenant: TenantId::NOBODY, priority: 0, count: 1 };

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
fn better_classes_have_a_reserve_of_a_tenth_but_at_least_one() {
    let urgent = Claim { priority: -1, ..ORDINARY };
    let relaxed = Claim { priority: 1, ..ORDINARY };
    for (max_queue, reserve) in [(3, 1), (40, 4)] {
        let admission = Admission::new(limits(max_queue));
        let _all = admission.try_acquire(Claim { count: max_queue, ..ORDINARY }).expect("free");
        assert!(admission.try_acquire(ORDINARY).is_err() && admission.try_acquire(relaxed).is_err());
        let reserved: Vec<_> = (0..reserve).map(|_| admission.try_acquire(urgent).expect("in reserve")).collect();
        assert!(admission.try_acquire(urgent).is_err());
        drop(reserved);
        assert!(admission.try_acquire(ORDINARY).is_err(), "the reserve is not for everybody");
    }
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
        book.give_back(TenantId::NOBODY, now);
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
    (0..41).for_each(|_| idle.give_back(TenantId::NOBODY, now));
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
        book.give_back(TenantId(2), now);
        book.take(other, now).expect("just given back");
    }
    match book.take(one, now) {
        Err(Refusal::OverQuota { limit: 20, retry_after }) => {
            assert!((7.0..9.0).contains(&retry_after.as_secs_f64()), "20 at half of 5 per second: {retry_after:?}");
        }
        other => panic!("{other:?}"),
    }
}
