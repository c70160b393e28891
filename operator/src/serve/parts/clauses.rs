//! Why a process is, or is not, at work on a machine: clause by clause, each with its evidence and what ends it.

use bmdb::entity::{process_pause, work_backoff, work_hold};
use bmdb::{Holder, MachineId};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use crate::answer::words::count;
use crate::facts::why::{Clause, Why};
use crate::serve::page::encoded;
use crate::serve::parts::chip::{Tone, chip, icon};
use crate::serve::parts::text::{foreign, long, process, session};
use crate::serve::parts::time::{clock, span, when};

/// One process and one machine.
pub(in crate::serve) struct Asked<'a> {
    pub(in crate::serve) why: &'a Why,
    pub(in crate::serve) process: &'a str,
    pub(in crate::serve) machine: MachineId,
    /// Whether acts are offered.
    pub(in crate::serve) may_write: bool,
}

/// How it stands, the most pressing first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::serve) enum Verdict {
    /// The process itself is at work.
    InWork,
    /// Something stands in the way that time alone does not end.
    Blocked,
    /// Nothing of BMDB's stands in the way; the rule could not be asked.
    Unknown,
    Eligible,
    /// Time ends it.
    Waits,
    /// Its rule does not ask for this machine.
    NotDue,
}

impl Asked<'_> {
    pub(in crate::serve) fn verdict(&self) -> Verdict {
        let own = &self.why.obstacles;
        if own.holder.as_ref().is_some_and(|holder| holder.process == self.process) {
            return Verdict::InWork;
        }
        let has_obstacles =
            own.holder.is_some() || own.backoff.is_some() || !own.holds.is_empty() || own.pause.is_some();
        match self.why.best() {
            None if has_obstacles => Verdict::Blocked,
            None => Verdict::Unknown,
            Some((_, explanation)) if explanation.eligible => Verdict::Eligible,
            Some((_, explanation)) if explanation.earliest.is_some() => Verdict::Waits,
            Some((_, explanation)) if !has_obstacles && explanation.clauses.iter().any(|clause| !clause.met) => {
                Verdict::NotDue
            }
            Some(_) => Verdict::Blocked,
        }
    }

    fn chip(&self) -> Markup {
        let holder = self.why.obstacles.holder.as_ref();
        match self.verdict() {
            Verdict::InWork if holder.is_some_and(|holder| holder.stop_requested.is_some()) => {
                chip("work", Tone::Person, "stuck")
            }
            Verdict::InWork => chip("work", Tone::Work, "in work"),
            Verdict::Blocked => chip("unmet", Tone::Quiet, "not eligible"),
            Verdict::Unknown => chip("none", Tone::Quiet, "not known"),
            Verdict::Eligible => chip("ready", Tone::Work, "eligible"),
            Verdict::Waits => chip("waits", Tone::Waits, "waits"),
            Verdict::NotDue => chip("none", Tone::Quiet, "not due"),
        }
    }

    /// Why, in a few words.
    fn short(&self) -> Markup {
        let why = self.why;
        let now = why.at;
        let (of_rule, own) = (why.of_rule(), why.of_bmdb());
        let unmet: Vec<_> = of_rule.iter().chain(&own).filter(|clause| !clause.is_met()).collect();
        match (self.verdict(), &why.obstacles.holder) {
            (Verdict::InWork, Some(holder)) => {
                html! { "holds slot " (foreign(&why.obstacles.slot)) " for " (span(now - holder.claimed_at)) }
            }
            (Verdict::Unknown, _) => html! { "nothing of BMDB’s own stands in the way; its rule was not asked" },
            (Verdict::Eligible, _) => html! { "nothing stands in the way" },
            (Verdict::NotDue, _) if unmet.len() == 1 => match unmet[0] {
                Clause::OfRule { what, .. } => html! { "not so: " (foreign(what)) },
                _ => html! {},
            },
            _ => {
                let all = (of_rule.len() + own.len()) as u64;
                let stand = if unmet.len() == 1 { "stands" } else { "stand" };
                html! { (unmet.len()) " of " (count(all, "clause", "clauses")) " " (stand) " in the way" }
            }
        }
    }

    fn earliest(&self) -> Markup {
        match (self.verdict(), self.why.best()) {
            (Verdict::Eligible, _) => html! { "now" },
            (Verdict::Waits, Some((_, explanation))) => match explanation.earliest {
                Some(earliest) => html! { (when(earliest, self.why.at)) },
                None => html! {},
            },
            (Verdict::Blocked, _) => html! { "no earliest time" },
            _ => html! {},
        }
    }

    /// A line that unfolds into the clauses.
    pub(in crate::serve) fn details(&self, is_open: bool) -> Markup {
        let why = self.why;
        let slot = &why.obstacles.slot;
        let (of_rule, own) = (why.of_rule(), why.of_bmdb());
        html! {
            details id={ "why-" (encoded(self.process)) } name="why" open[is_open] {
                summary {
                    span.process { (foreign(self.process)) }
                    span { (self.chip()) }
                    span.short { (self.short()) }
                    span.earliest { (self.earliest()) }
                }
                div.inside {
                    h4 { "Its rule" }
                    @if let Some((rule, _)) = why.best() {
                        ul.clauses { @for clause in &of_rule { (self.clause(clause, slot)) } }
                        p.quiet { "Rule " code { (rule.digest) } ", as " (foreign(&rule.component)) " uses it." }
                    } @else if why.unread.is_empty() {
                        p.quiet { "It has no rule: nobody has used one for a day." }
                    }
                    @for unread in &why.unread { p.quiet { (super::text::prose(unread)) "." } }
                    h4 { "Slot, backoff, holds, pause" }
                    ul.clauses { @for clause in &own { (self.clause(clause, slot)) } }
                    (self.end(&of_rule, &own))
                    @for (other, explanation) in why.explained.iter().skip(1) {
                        p.quiet { "By another rule, " code { (other.digest) } " of " (foreign(&other.component)) ", it is " (if explanation.eligible { "eligible." } else { "not eligible." }) }
                    }
                    p.quiet { a href={ "/processes/" (encoded(self.process)) } { "The process and its machines" } }
                }
            }
        }
    }

    /// When all of it can be met, at the earliest.
    fn end(&self, of_rule: &[Clause<'_>], own: &[Clause<'_>]) -> Markup {
        let unmet = || of_rule.iter().chain(own).filter(|clause| !clause.is_met());
        let open = unmet().filter(|clause| clause.ends_at().is_none()).count();
        match self.verdict() {
            Verdict::Eligible => {
                html! { p.verdict { b { "Nothing stands in the way." } " Whoever claims it first has it." } }
            }
            Verdict::Waits => match unmet().filter_map(Clause::ends_at).max() {
                Some(end) => {
                    html! { p.verdict { b { "At the earliest " (when(end, self.why.at)) "." } " All that stands in the way ends by itself." } }
                }
                None => html! {},
            },
            Verdict::Blocked | Verdict::NotDue => {
                let by_itself = unmet().count() - open;
                html! {
                    p.verdict {
                        b { "No earliest time." } " "
                        @match (by_itself, open) {
                            (0, 1) => "What stands in the way does not end by itself.",
                            (0, many) => { "The " (many) " that stand in the way do not end by themselves." },
                            (ends, many) => { (ends) " " (if ends == 1 { "ends" } else { "end" }) " by " (if ends == 1 { "itself" } else { "themselves" }) "; " (many) " " (if many == 1 { "does not." } else { "do not." }) },
                        }
                    }
                }
            }
            Verdict::InWork | Verdict::Unknown => html! {},
        }
    }

    fn clause(&self, clause: &Clause<'_>, slot: &str) -> Markup {
        let now = self.why.at;
        let (class, sign, word) = match (clause.is_met(), clause.ends_at()) {
            (true, _) => ("met", "met", "met: "),
            (false, Some(_)) => ("unmet time", "waits", "not met: "),
            (false, None) => ("unmet", "unmet", "not met: "),
        };
        let (what, evidence, ends) = match clause {
            Clause::OfRule { what, .. } => (html! { (long(what)) }, None, None),
            Clause::Slot(holder) => (
                html! { "nobody works in slot " (foreign(slot)) },
                holder.map(|holder| held(holder, now)),
                holder.map(|holder| html! { "When session " (session(holder.session)) " lets go, or is expired" }),
            ),
            Clause::Backoff(None) => (html! { "no backoff" }, None, None),
            Clause::Backoff(Some(backoff)) => {
                let what = if backoff.until.is_some() {
                    "no backoff"
                } else {
                    "it is not parked"
                };
                (
                    html! { (what) },
                    Some(failed(backoff, now)),
                    Some(self.backoff_ends(backoff, now)),
                )
            }
            Clause::NoHold => (
                html! { "no hold on slot " (foreign(slot)) " or on the machine" },
                None,
                None,
            ),
            Clause::Hold(hold) => {
                let on = match hold.slot.as_str() {
                    "*" => html! { "no hold on the machine" },
                    slot => html! { "no hold on slot " (foreign(slot)) },
                };
                (on, Some(placed(hold, now)), Some(self.hold_ends(hold, now)))
            }
            Clause::Pause(pause) => (
                html! { "the process is not paused" },
                pause.map(|pause| paused(pause, now)),
                pause.map(|pause| self.pause_ends(pause, now)),
            ),
        };
        html! {
            li class=(class) {
                (icon(sign))
                div { span.unseen { (word) } div.what { (what) } @if let Some(evidence) = evidence { div.evidence { (evidence) } } }
                div.ends { @if let Some(ends) = ends { (ends) } }
            }
        }
    }

    fn backoff_ends(&self, backoff: &work_backoff::Model, now: DateTime<Utc>) -> Markup {
        let act = |verb: &str, word: &str| html! { a href={ "/machines/" (self.machine) "/backoff/" (verb) "?process=" (encoded(self.process)) } { (word) } };
        match backoff.until {
            Some(end) => {
                html! { b { "By itself" } " " (when(end, now)) @if self.may_write { ", or " (act("run-now", "run now…")) } }
            }
            None => html! { b { "A person" } @if self.may_write { " " (act("clear", "clears it…")) } },
        }
    }

    fn pause_ends(&self, pause: &process_pause::Model, now: DateTime<Utc>) -> Markup {
        html! {
            @match pause.until {
                Some(end) => { b { "By itself" } " " (when(end, now)) },
                None => b { "A person" },
            }
            @if self.may_write { @if pause.until.is_some() { ", or " } " " a href={ "/processes/" (encoded(self.process)) "/resume" } { "resume it…" } }
        }
    }

    fn hold_ends(&self, hold: &work_hold::Model, now: DateTime<Utc>) -> Markup {
        let address = release_address(self.machine, &hold.slot);
        html! {
            @match hold.until {
                Some(end) => { b { "By itself" } " " (when(end, now)) },
                None => b { "A person" },
            }
            @if self.may_write { @if hold.until.is_some() { ", or " } " " a href=(address) { "release it…" } }
        }
    }
}

/// Who paused a process, when, and why.
pub(in crate::serve) fn paused(pause: &process_pause::Model, now: DateTime<Utc>) -> Markup {
    html! {
        "by " (foreign(&pause.paused_by)) " " (when(pause.paused_at, now))
        @if let Some(ticket) = &pause.ticket { ", " (foreign(ticket)) }
        ": " (long(&pause.reason))
    }
}

/// Where a hold is released.
pub(in crate::serve) fn release_address(machine: MachineId, slot: &str) -> String {
    match slot {
        "*" => format!("/machines/{machine}/release"),
        slot => format!("/machines/{machine}/release?slot={}", encoded(slot)),
    }
}

fn held(holder: &Holder, now: DateTime<Utc>) -> Markup {
    html! {
        (process(&holder.process)) " by " (foreign(&holder.component_name)) " for " (span(now - holder.claimed_at)) ", " (super::text::fence(holder.fence))
        @if let Some(reason) = &holder.stop_requested { "; asked to stop: " (long(reason)) }
    }
}

fn failed(backoff: &work_backoff::Model, now: DateTime<Utc>) -> Markup {
    html! {
        @if let Some(end) = backoff.until { "until " (clock(end, now)) ", " }
        "after " (count(backoff.attempts.unsigned_abs(), "failure", "failures")) "; the last: " (long(&backoff.cause))
    }
}

fn placed(hold: &work_hold::Model, now: DateTime<Utc>) -> Markup {
    html! {
        "by " (foreign(&hold.placed_by)) " " (when(hold.placed_at, now))
        @if let Some(ticket) = &hold.ticket { ", " (foreign(ticket)) }
        ": " (long(&hold.reason))
    }
}
