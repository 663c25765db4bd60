//! The supervisor of short-lived children.

use tokio::time::Instant;

use super::*;

struct Sessions {
    supervisor: ActorRef<DynamicSupervisorMsg>,
    ended: JoinHandle<()>,
    script: Arc<Script>,
    events: broadcast::Receiver<SupervisionEventRecord>,
}

impl Sessions {
    async fn start() -> Self {
        let (feed, events) = broadcast::channel(256);
        let args = DynamicSupervisorArgs {
            path: unique("sessions"),
            stop_deadline: Duration::from_secs(2),
            events: feed,
            registry: ActorRegistry::default(),
            board: Arc::new(Board::new(&[Field::Number("open")])),
        };
        let (supervisor, ended) = DynamicSupervisor::spawn(None, DynamicSupervisor, args).await.unwrap();
        Self { supervisor, ended, script: Arc::default(), events }
    }

    async fn open(&self) -> ActorRef<WorkerMsg> {
        // Each has a script of its own, for they live at the same time.
        let script = Arc::new(Script { journal: self.script.journal.clone(), ..Script::default() });
        Worker::spawn_linked(None, Worker, ("s".into(), 1, script), self.supervisor.get_cell()).await.unwrap().0
    }

    async fn tally(&self) -> Tally {
        ask(&self.supervisor, |reply_to| DynamicSupervisorMsg::Tally { reply_to }).await
    }
}

#[tokio::test(start_paused = true)]
async fn any_number_of_panics_is_survived_and_forgotten() {
    let mut sessions = Sessions::start().await;
    let mut ids = Vec::new();
    for n in 0..1_000 {
        let session = sessions.open().await;
        ids.push(session.get_id());
        session.cast(if n % 2 == 0 { WorkerMsg::Panic } else { WorkerMsg::Finish }).unwrap();
        session.wait(Some(LONG)).await.unwrap();
    }
    let tally = sessions.tally().await;
    assert_eq!((tally.live, tally.finished, tally.failed), (0, 500, 500));
    assert!(ids.iter().all(|id| mailbox_stats(*id).is_none()));
    let told = sessions.events.len();
    assert!(told >= 256, "failures are told, as many as the feed holds: {told}");
    sessions.supervisor.stop(None);
    (&mut sessions.ended).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stopping_stops_all_sessions_and_kills_those_that_hang() {
    let mut sessions = Sessions::start().await;
    let good = sessions.open().await;
    let hanging = sessions.open().await;
    hanging.cast(WorkerMsg::Hang).unwrap();
    tokio::task::yield_now().await;
    let begun = Instant::now();
    sessions.supervisor.stop(None);
    timeout(LONG, &mut sessions.ended).await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(*sessions.script.journal.lock().unwrap(), ["start s", "start s", "stop s"]);
    for session in [good, hanging] {
        assert_eq!(session.get_status(), ractor::ActorStatus::Stopped);
    }
}

#[tokio::test(start_paused = true)]
async fn no_session_can_be_opened_under_a_stopped_supervisor() {
    let sessions = Sessions::start().await;
    sessions.supervisor.stop_and_wait(None, Some(LONG)).await.unwrap();
    let late = Worker::spawn_linked(None, Worker, ("s".into(), 1, Arc::default()), sessions.supervisor.get_cell());
    assert!(late.await.is_err());
}
