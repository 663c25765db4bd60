//! Whatever is asked in whatever order: each request ends once, with nothing but right tokens.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Admit { sequence: u32, seed: u64, length: usize, count: u32, in_place: bool },
    Cancel(u64),
    Evict(u32),
    Steps(u8),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0u32..6, 0u64..4, 1usize..60, 0u32..25, any::<bool>()).prop_map(
            |(sequence, seed, length, count, in_place)| Action::Admit { sequence, seed, length, count, in_place }
        ),
        2 => (0u64..40).prop_map(Action::Cancel),
        2 => (0u32..6).prop_map(Action::Evict),
        4 => (1u8..12).prop_map(Action::Steps),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_admit_ends_once_and_emits_only_right_tokens(
        actions in prop::collection::vec(action(), 1..80),
        n_ctx in 70u32..300,
        parked_limit in 0u32..120,
        parked_bytes in prop_oneof![Just(u64::MAX), 0u64..4000],
        (memory, streams) in prop_oneof![
            Just((MemoryKind::Attention, None)),
            (1u32..7).prop_map(|streams| (MemoryKind::Attention, Some(streams))),
            Just((MemoryKind::Recurrent, None)),
            Just((MemoryKind::None, None)),
        ],
    ) {
        let spec = FakeSpec { n_ctx, running: 4, retained: 2, parked_limit, parked_bytes, streams, memory, ..FakeSpec::default() };
        let mut engine = Engine::new(spec);
        engine.apply(limits(16));
        let mut admitted: Vec<(RequestId, Vec<Token>, u32)> = Vec::new();
        for action in actions {
            match action {
                Action::Admit { sequence, seed, length, count, in_place } => {
                    let request = admitted.len() as RequestId;
                    let tokens = prompt(seed, length);
                    let placement = if in_place { Placement::InPlace } else { Placement::Copy { from: 0, tokens: 30 } };
                    let admit = Admit { placement, ..admit(request, sequence, tokens.clone(), count) };
                    engine.apply(EngineCommand::Admit(Box::new(admit)));
                    admitted.push((request, tokens, count));
                }
                Action::Cancel(request) => engine.apply(EngineCommand::Cancel { epoch: 1, request }),
                Action::Evict(sequence) => engine.apply(EngineCommand::Evict { epoch: 1, sequence }),
                Action::Steps(count) => (0..count).for_each(|_| engine.step()),
            }
        }
        // What is held back for cells ends when told to.
        engine.run_dry();
        admitted.iter().for_each(|(request, ..)| {
            engine.apply(EngineCommand::Cancel { epoch: 1, request: *request });
        });
        let outcome = engine.outcome();
        for (request, tokens, count) in admitted {
            let ended = &outcome.ended[&request];
            prop_assert_eq!(ended.len(), 1);
            let emitted = outcome.tokens.get(&request).cloned().unwrap_or_default();
            prop_assert_eq!(emitted.len() as u32, ended[0].emitted);
            let expected = fake::continuation(&engine.spec, &tokens, count as usize);
            prop_assert_eq!(&emitted[..], &expected[..emitted.len()]);
            if ended[0].reason == EndReason::Length {
                prop_assert_eq!(emitted.len() as u32, count.min(n_ctx - tokens.len() as u32));
            }
        }
    }
}
