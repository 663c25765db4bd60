//! Order inside and between classes, and how long anybody may be passed over.

use proptest::prelude::*;

use super::*;

fn standing(priority: i32, tenant: u32, arrived_us: u64) -> Standing {
    Standing { priority, tenant: TenantId(tenant), arrived_us }
}

impl Queue {
    /// How many go before this one.
    pub(in crate::scheduler) fn position(&self, request: RequestId) -> Option<usize> {
        self.positions().get(&request).map(|place| *place as usize)
    }
}

fn push(queue: &mut Queue, request: RequestId, standing: Standing, tokens: usize) {
    queue.push(request, standing, vec![1; tokens].into(), Served::Nothing);
}

/// Takes whoever is next.
fn take(queue: &mut Queue) -> Queued {
    let next = queue.next(|_| true).expect("somebody waits").request;
    queue.take(next).expect("it waits")
}

/// Takes everybody in turn; each ends before the next begins.
fn drain(queue: &mut Queue) -> Vec<RequestId> {
    let mut order = Vec::new();
    while !queue.is_empty() {
        let taken = take(queue);
        queue.leave(taken.standing);
        order.push(taken.request);
    }
    order
}

#[test]
fn classes_are_strict_and_inside_one_the_earliest_goes_first() {
    let mut queue = Queue::default();
    for (request, priority, arrived_us) in [(1, 0, 30), (2, 5, 10), (3, -1, 40), (4, 0, 20)] {
        push(&mut queue, request, standing(priority, 0, arrived_us), 10);
    }
    let positions: Vec<_> = (1..=5).map(|request| queue.position(request)).collect();
    assert_eq!(positions, [Some(2), Some(3), Some(0), Some(1), None]);
    assert_eq!((queue.better_than(0), queue.better_than(5)), (1, 3));
    assert_eq!(drain(&mut queue), [3, 4, 1, 2]);
}

#[test]
fn the_tenant_that_was_served_least_goes_next() {
    let mut queue = Queue::default();
    (1..=4).for_each(|request| push(&mut queue, request, standing(0, 1, request), 10));
    let running = take(&mut queue);
    push(&mut queue, 10, standing(0, 2, 100), 25);
    push(&mut queue, 11, standing(0, 2, 101), 25);
    queue.charge(running.standing, 7);
    // The second tenant came in at 10; the first is at 17 by now, and it goes on at 27 and 37.
    let positions: Vec<_> = [10, 2, 3, 11, 4].map(|request| queue.position(request)).to_vec();
    assert_eq!(positions, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(drain(&mut queue), [10, 2, 3, 11, 4]);
}

#[test]
fn idling_gives_no_credit_and_leaving_pays_no_debt() {
    let mut queue = Queue::default();
    push(&mut queue, 1, standing(0, 1, 1), 1);
    let first = take(&mut queue);
    queue.charge(first.standing, 1000);
    // A tenant that was not there before: one request may go first for it, not a thousand tokens' worth.
    push(&mut queue, 2, standing(0, 2, 2), 10);
    push(&mut queue, 3, standing(0, 2, 3), 10);
    push(&mut queue, 4, standing(0, 1, 4), 10);
    assert_eq!(take(&mut queue).request, 2);
    assert_eq!(take(&mut queue).request, 4);
    // The second one leaves with less than the first has; it is still behind when it comes back.
    queue.charge(standing(0, 2, 3), 500);
    assert_eq!(queue.remove(3).map(|it| it.request), Some(3));
    queue.leave(standing(0, 2, 2));
    push(&mut queue, 5, standing(0, 2, 5), 10);
    push(&mut queue, 6, standing(0, 1, 6), 10);
    assert_eq!(take(&mut queue).request, 6);
}

#[test]
fn what_was_found_in_the_cache_is_not_charged_and_nothing_is_charged_twice() {
    let mut queue = Queue::default();
    push(&mut queue, 1, standing(0, 1, 1), 100);
    push(&mut queue, 2, standing(0, 2, 2), 60);
    let first = take(&mut queue);
    queue.refund(first.standing, 80);
    push(&mut queue, 3, standing(0, 1, 3), 10);
    let second = take(&mut queue);
    assert_eq!((first.charge, second.request), (100, 2));
    // 20 against 60. Its first request was preempted and comes again, with all of its tokens paid for.
    queue.push(1, first.standing, vec![1; 120].into(), Served::Here);
    queue.leave(first.standing);
    let again = take(&mut queue);
    assert_eq!((again.request, again.charge), (1, 0));
    assert_eq!(take(&mut queue).request, 3);
}

#[test]
fn a_new_queue_goes_on_with_what_sessions_know_of_the_old_one() {
    let mut queue = Queue::default();
    queue.push(1, standing(0, 1, 1), vec![1; 50].into(), Served::Before(50));
    queue.push(2, standing(0, 1, 2), vec![1; 10].into(), Served::Before(0));
    queue.push(3, standing(0, 2, 3), vec![1; 10].into(), Served::Before(0));
    queue.push(4, standing(0, 2, 4), vec![1; 30].into(), Served::Before(20));
    assert_eq!(drain(&mut queue), [3, 4, 1, 2], "20 and 30 for the second tenant, then 50 for the first");
}

#[test]
fn nothing_is_remembered_of_a_class_that_is_empty() {
    let mut queue = Queue::default();
    for request in 0..1000 {
        push(&mut queue, request, standing(request as i32 % 7, request as u32, request), 3);
    }
    drain(&mut queue);
    assert!(queue.classes.is_empty() && queue.standings.is_empty());
}

/// What the world does to the queue.
#[derive(Debug, Clone)]
enum Deed {
    Submit {
        priority: i32,
        tenant: u32,
        tokens: usize,
        emits: u64,
    },
    /// Every running request emits a token; those that are through end, and free places are taken.
    Step,
    Cancel(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (-1..2i32, 0u32..4, 1usize..40, 1u64..30)
            .prop_map(|(priority, tenant, tokens, emits)| Deed::Submit { priority, tenant, tokens, emits }),
        6 => Just(Deed::Step),
        1 => any::<usize>().prop_map(Deed::Cancel),
    ]
}

const PLACES: usize = 3;
const MOST_TOKENS: u64 = 40;
const MOST_EMITTED: u64 = 30;

/// A request that waits: since when, by the tokens that each tenant of its class had been served.
struct Wait {
    standing: Standing,
    served: [u64; 4],
    /// By how much its tenant was ahead of the last one.
    ahead: u64,
}

#[derive(Default)]
struct World {
    queue: Queue,
    next: RequestId,
    waits: HashMap<RequestId, Wait>,
    emits: HashMap<RequestId, u64>,
    running: Vec<(Queued, u64)>,
    /// Tokens by class and tenant.
    served: HashMap<i32, [u64; 4]>,
}

impl World {
    fn submit(&mut self, priority: i32, tenant: u32, tokens: usize, emits: u64) {
        self.next += 1;
        let standing = standing(priority, tenant, self.next);
        push(&mut self.queue, self.next, standing, tokens);
        let class = &self.queue.classes[&priority];
        let ahead = class.shares[&standing.tenant].counter - class.least_counter().expect("it is there");
        let served = *self.served.entry(priority).or_default();
        self.waits.insert(self.next, Wait { standing, served, ahead });
        self.emits.insert(self.next, emits);
    }

    fn step(&mut self) {
        let Self { queue, served, running, emits, .. } = self;
        running.retain_mut(|(taken, emitted)| {
            *emitted += 1;
            queue.charge(taken.standing, 1);
            served.entry(taken.standing.priority).or_default()[taken.standing.tenant.0 as usize] += 1;
            let goes_on = *emitted < emits[&taken.request];
            if !goes_on {
                queue.leave(taken.standing);
            }
            goes_on
        });
        while self.running.len() < PLACES && !self.queue.is_empty() {
            self.take();
        }
    }

    fn take(&mut self) {
        let next = self.queue.next(|_| true).expect("somebody waits");
        assert_eq!(self.queue.position(next.request), Some(0));
        let taken = self.queue.take(next.request).expect("it waits");
        let best = self.waits.values().map(|wait| wait.standing.priority).min();
        assert_eq!(Some(taken.standing.priority), best, "only a better class goes first");
        let Wait { standing, served: before, ahead } = self.waits.remove(&taken.request).expect("it waits");
        let now = self.served.entry(standing.priority).or_default();
        let gained: Vec<u64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
        let own = gained[standing.tenant.0 as usize];
        // Nobody was served more meanwhile than its own tenant, but for what that was ahead by, and what was under way.
        let most = own + ahead + MOST_TOKENS + PLACES as u64 * MOST_EMITTED;
        assert!(
            gained.iter().all(|gained| *gained <= most),
            "{gained:?} while {} waited, at most {most}",
            taken.request
        );
        now[standing.tenant.0 as usize] += taken.charge;
        self.running.push((taken, 0));
    }

    fn cancel(&mut self, which: usize) {
        let mut waiting: Vec<_> = self.waits.keys().copied().collect();
        waiting.sort_unstable();
        if let Some(request) = waiting.get(which % waiting.len().max(1)) {
            assert!(self.queue.remove(*request).is_some());
            self.waits.remove(request);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Nobody starves: only a better class is served before a request without bound, and everybody is served in the end.
    #[test]
    fn nobody_is_passed_over_but_for_a_better_class(deeds in prop::collection::vec(deed(), 1..400)) {
        let mut world = World::default();
        for deed in deeds {
            match deed {
                Deed::Submit { priority, tenant, tokens, emits } => world.submit(priority, tenant, tokens, emits),
                Deed::Step => world.step(),
                Deed::Cancel(which) => world.cancel(which),
            }
            prop_assert_eq!(world.queue.len(), world.waits.len());
        }
        while !world.waits.is_empty() || !world.running.is_empty() {
            world.step();
        }
        prop_assert!(world.queue.classes.is_empty() && world.queue.standings.is_empty());
    }

    /// Positions are the order in which requests are taken when nothing else happens.
    #[test]
    fn a_position_is_the_number_of_requests_that_go_first(
        requests in prop::collection::vec((-1..2i32, 0u32..4, 1usize..40), 1..40),
        emitted in prop::collection::vec(0u64..50, 4),
    ) {
        let mut queue = Queue::default();
        let mut running = Vec::new();
        for (tenant, emitted) in (0..).zip(emitted) {
            push(&mut queue, 1000 + u64::from(tenant), standing(0, tenant, 0), 1);
            running.push(take(&mut queue));
            queue.charge(standing(0, tenant, 0), emitted);
        }
        for (request, (priority, tenant, tokens)) in (1..).zip(requests) {
            push(&mut queue, request, standing(priority, tenant, request), tokens);
        }
        let mut positions: Vec<_> = queue.standings.keys().map(|request| (queue.position(*request), *request)).collect();
        positions.sort_unstable();
        for (place, (position, request)) in positions.into_iter().enumerate() {
            prop_assert_eq!(position, Some(place));
            let taken = take(&mut queue);
            prop_assert_eq!(taken.request, request);
            running.push(taken);
        }
    }
}
