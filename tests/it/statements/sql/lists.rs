//! Each list of what operators see, in each of its forms.

use bmdb::{Bmdb, MachineFilter, MachineId, MachineState, Process, WorkId, WorksOf};
use harness::AgentStart;

pub(super) async fn list_states(bmdb: &Bmdb, machine: MachineId) {
    let works = [
        WorksOf::All,
        WorksOf::Machines(vec![machine]),
        WorksOf::Session(bmdb::SessionId::random()),
        WorksOf::Process(AgentStart::NAME.to_owned()),
        WorksOf::Work(WorkId::random()),
    ];
    for of in works {
        bmdb.works(of.clone()).await.unwrap();
        bmdb.works(of).after((machine, String::new())).await.unwrap();
    }
    let filter = MachineFilter::new;
    let mut filters = vec![
        filter(),
        filter().ids([machine]),
        filter().provider("test"),
        filter().name("m0"),
    ];
    for state in [
        MachineState::InWork,
        MachineState::BackingOff,
        MachineState::Parked,
        MachineState::Held,
    ] {
        filters.extend([filter().state(state), filter().state(state).process(AgentStart::NAME)]);
    }
    for filter in filters {
        bmdb.machines(filter).after(machine).await.unwrap();
    }
    bmdb.holds_on([machine, machine]).await.unwrap();
    bmdb.backoffs_from([machine, machine]).await.unwrap();
    bmdb.processes().await.unwrap();
}
