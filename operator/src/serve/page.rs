//! Which page a request asks for. One type for all three ways in which a page is told: as HTML, as JSON under `/json`, and live under `/live`.

use bmdb::{MachineFilter, MachineId, MachineState, SessionId, WorkId};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

use crate::failure::Failure;

/// A page, with all that its address says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Page {
    Fleet,
    Attention,
    Machines(Machines),
    Machine {
        id: MachineId,
        /// The process whose reasons are unfolded.
        why: Option<String>,
    },
    History(MachineId),
    Works(Works),
    Work(WorkId),
    Sessions,
    Session(SessionId),
    Processes,
    Process(String),
    Actions(Actions),
    Collector,
    Schema,
}

/// Which machines are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Machines {
    pub(super) name: Option<String>,
    pub(super) state: Option<State>,
    pub(super) process: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) after: Option<Uuid>,
}

/// Which works are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Works {
    pub(super) process: Option<String>,
    pub(super) stuck: bool,
}

/// Which acts are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Actions {
    pub(super) machine: Option<MachineId>,
    /// The last of the page before: its time and its id.
    pub(super) after: Option<(String, Uuid)>,
}

/// A state that machines are listed by, as the address has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    InWork,
    BackingOff,
    Parked,
    Held,
}

impl State {
    pub(super) const ALL: [Self; 4] = [Self::InWork, Self::BackingOff, Self::Parked, Self::Held];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InWork => "in-work",
            Self::BackingOff => "backing-off",
            Self::Parked => "parked",
            Self::Held => "held",
        }
    }

    fn of(self) -> MachineState {
        match self {
            Self::InWork => MachineState::InWork,
            Self::BackingOff => MachineState::BackingOff,
            Self::Parked => MachineState::Parked,
            Self::Held => MachineState::Held,
        }
    }
}

/// What stands behind the `?`, each name once.
struct Query(Vec<(String, String)>);

impl Query {
    fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.0.swap_remove(place);
        // A form sends what was left empty, too.
        Some(value).filter(|value| !value.is_empty())
    }

    /// What is left is not ours: a filter that was mistyped would show all, and look right.
    fn end(self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Failure::usage(format!("this page takes no {name:?} in its address"))),
        }
    }
}

impl Page {
    /// What an address names. `query`: its pairs, decoded.
    pub(super) fn parse(path: &str, query: Vec<(String, String)>) -> Result<Self, Failure> {
        let mut query = Query(query);
        let parts: Vec<_> = path
            .trim_matches('/')
            .split('/')
            .map(decoded)
            .collect::<Result<_, _>>()?;
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        let page = match parts.as_slice() {
            ["fleet"] => Self::Fleet,
            ["attention"] => Self::Attention,
            ["machines"] => Self::Machines(Machines::take(&mut query)?),
            ["machines", id] => Self::Machine {
                id: MachineId(uuid(id)?),
                why: query.take("why"),
            },
            ["machines", id, "history"] => Self::History(MachineId(uuid(id)?)),
            ["works"] => Self::Works(Works {
                process: query.take("process"),
                stuck: query.take("stuck").is_some(),
            }),
            ["works", id] => Self::Work(WorkId(uuid(id)?)),
            ["sessions"] => Self::Sessions,
            ["sessions", id] => Self::Session(SessionId(uuid(id)?)),
            ["processes"] => Self::Processes,
            ["processes", name] => Self::Process((*name).to_owned()),
            ["actions"] => Self::Actions(Actions::take(&mut query)?),
            ["collector"] => Self::Collector,
            ["schema"] => Self::Schema,
            _ => return Err(Failure::not_found(format!("there is no page {path}"))),
        };
        query.end()?;
        Ok(page)
    }

    /// Its address: path and query.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Fleet => "/fleet".to_owned(),
            Self::Attention => "/attention".to_owned(),
            Self::Machines(machines) => machines.address(),
            Self::Machine { id, why } => format!("/machines/{id}{}", queried(&[("why", why.clone())])),
            Self::History(id) => format!("/machines/{id}/history"),
            Self::Works(works) => {
                let stuck = works.stuck.then(|| "yes".to_owned());
                format!(
                    "/works{}",
                    queried(&[("process", works.process.clone()), ("stuck", stuck)])
                )
            }
            Self::Work(id) => format!("/works/{id}"),
            Self::Sessions => "/sessions".to_owned(),
            Self::Session(id) => format!("/sessions/{id}"),
            Self::Processes => "/processes".to_owned(),
            Self::Process(name) => format!("/processes/{}", encoded(name)),
            Self::Actions(actions) => actions.address(),
            Self::Collector => "/collector".to_owned(),
            Self::Schema => "/schema".to_owned(),
        }
    }
}

impl Machines {
    fn take(query: &mut Query) -> Result<Self, Failure> {
        let state = query.take("state").map(|word| {
            let known = State::ALL.into_iter().find(|state| state.word() == word);
            known.ok_or_else(|| {
                Failure::usage(format!(
                    "there is no state {word:?}: in-work, backing-off, parked, held"
                ))
            })
        });
        let after = query.take("after").map(|id| uuid(&id));
        let machines = Self {
            name: query.take("q"),
            state: state.transpose()?,
            process: query.take("process"),
            provider: query.take("provider"),
            after: after.transpose()?,
        };
        if machines.process.is_some() && machines.state.is_none() {
            return Err(Failure::usage(
                "choose a state as well: a machine stands to a process in a state",
            ));
        }
        Ok(machines)
    }

    pub(super) fn filter(&self) -> MachineFilter {
        let mut filter = MachineFilter::new();
        if let Some(name) = &self.name {
            filter = filter.name(name.as_str());
        }
        if let Some(state) = self.state {
            filter = filter.state(state.of());
        }
        if let Some(process) = &self.process {
            filter = filter.process(process.as_str());
        }
        if let Some(provider) = &self.provider {
            filter = filter.provider(provider.as_str());
        }
        filter
    }

    /// The same list from another place on.
    pub(super) fn from(&self, after: Option<Uuid>) -> Self {
        Self { after, ..self.clone() }
    }

    pub(super) fn address(&self) -> String {
        let state = self.state.map(|state| state.word().to_owned());
        let pairs = [
            ("q", self.name.clone()),
            ("state", state),
            ("process", self.process.clone()),
            ("provider", self.provider.clone()),
            ("after", self.after.map(|id| id.to_string())),
        ];
        format!("/machines{}", queried(&pairs))
    }
}

impl Actions {
    fn take(query: &mut Query) -> Result<Self, Failure> {
        let machine = query.take("machine").map(|id| uuid(&id).map(MachineId)).transpose()?;
        let after = query.take("after").map(|key| {
            let halves = key.split_once('_').map(|(at, id)| (at.to_owned(), Uuid::try_parse(id)));
            match halves {
                Some((at, Ok(id))) => Ok((at, id)),
                _ => Err(Failure::usage(
                    "that page of the list cannot be found: begin with the first",
                )),
            }
        });
        let after = after.transpose()?;
        Ok(Self { machine, after })
    }

    pub(super) fn address(&self) -> String {
        let after = self.after.as_ref().map(|(at, id)| format!("{at}_{id}"));
        let machine = self.machine.map(|id| id.to_string());
        format!("/actions{}", queried(&[("machine", machine), ("after", after)]))
    }
}

/// A text as a part of an address.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn decoded(part: &str) -> Result<String, Failure> {
    let text = percent_decode_str(part).decode_utf8();
    text.map(|text| text.into_owned())
        .map_err(|_odd| Failure::usage("the address has bytes that are no text"))
}

fn queried(pairs: &[(&str, Option<String>)]) -> String {
    let given = pairs
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_ref()?))));
    let given: Vec<_> = given.collect();
    match given.is_empty() {
        true => String::new(),
        false => format!("?{}", given.join("&")),
    }
}

fn uuid(text: &str) -> Result<Uuid, Failure> {
    Uuid::try_parse(text).map_err(|_odd| {
        Failure::not_found(format!(
            "{text:?} is no id: ids are like 7c1de0a4-52bf-4f0e-9d3b-0a6c1f5be812"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_the_page_that_it_was_made_for() {
        let id = Uuid::from_u128(7);
        let machines = Machines {
            name: Some("a&b=c d/é".to_owned()),
            state: Some(State::Parked),
            process: Some("in?stall".to_owned()),
            provider: None,
            after: Some(id),
        };
        let acts = Actions {
            machine: Some(MachineId(id)),
            after: Some(("2026-12-01T08:00:00.123456Z".to_owned(), id)),
        };
        let why = Some("in/stall".to_owned());
        for page in [
            Page::Machines(machines),
            Page::Machine { id: MachineId(id), why },
            Page::Process("a/../b?c#d".to_owned()),
            Page::Actions(acts),
            Page::Works(Works {
                process: None,
                stuck: true,
            }),
        ] {
            let address = page.address();
            let (path, query) = address.split_once('?').unwrap_or((&address, ""));
            let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
                let (name, value) = pair.split_once('=').unwrap();
                (name.to_owned(), decoded(value).unwrap())
            });
            assert_eq!(Page::parse(path, pairs.collect()).unwrap(), page, "{address}");
        }
    }

    #[test]
    fn what_a_page_does_not_take_is_refused_by_name() {
        let refused = |path: &str, name: &str| {
            let pair = (name.to_owned(), "x".to_owned());
            Page::parse(path, vec![pair]).unwrap_err().text
        };
        assert_eq!(
            refused("/fleet", "state"),
            "this page takes no \"state\" in its address"
        );
        assert!(refused("/machines", "state").contains("there is no state \"x\""));
        assert!(refused("/machines", "process").contains("choose a state as well"));
        assert!(refused("/nothing", "a").contains("there is no page /nothing"));
    }
}
