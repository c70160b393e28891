//! A rule: what a registered value of a process asks of machines, and what a component keeps of it for its claims.

use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bmdb_entity::MachineRow;
use sea_orm::sea_query::Expr;
use sea_orm::{IdenStatic, ModelTrait};

use crate::db::dialect::Dialect;
use crate::db::sql::SqlFragment;
use crate::error::Error;
use crate::rules::check::check_text;
use crate::rules::claimable::eligible_for;
use crate::rules::eligible::{Eligible, KeyRange, name_of};
use crate::rules::hint_refresh::HintRefresh;
use crate::rules::process::{Process, check};
use crate::rules::work_key::RuleKey;
use crate::runtime::lock::locked;
use crate::store::candidate::ClaimSql;

/// A rule, as a component uses it.
pub(crate) struct Rule {
    pub(crate) key: RuleKey,
    pub(crate) slot: &'static str,
    pub(crate) description: &'static str,
    pub(crate) cool_down: Duration,
    pub(crate) eligible: Eligible,
    /// What is the same in all of its claims.
    pub(crate) sql: ClaimSql,
    /// When to refresh its hints.
    pub(crate) refresh: HintRefresh,
    pub(crate) text: RuleText,
    registered: Mutex<Instant>,
}

/// What the database keeps of a rule, for those who have no code of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleText {
    /// The item's table, quoted, and its column of machine ids.
    pub(crate) item: String,
    pub(crate) item_machine_id: String,
    pub(crate) clauses: Vec<ClauseText>,
}

/// A clause, in words and as SQL with its values in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ClauseText {
    pub(crate) why: String,
    pub(crate) sql: String,
}

/// A rule is written again after so long, so that it is not taken for one that nobody uses.
const RENEWED_AFTER: Duration = Duration::from_secs(3600);

impl Rule {
    /// The rule of a value, checked as far as that needs no database.
    pub(crate) fn of<P: Process>(process: &P, dialect: Dialect) -> Result<Self, Error> {
        check::<P>()?;
        let eligible = eligible_for(process);
        let mut clauses = Vec::with_capacity(eligible.clauses.len());
        for clause in &eligible.clauses {
            check_text("the name of a clause", &clause.why, 4096)?;
            let sql = expression(dialect, (clause.test)(dialect, KeyRange::All).into())?;
            let why = clause.why.clone();
            clauses.push(ClauseText { why, sql });
        }
        let sql = ClaimSql::of::<P>(&eligible, dialect);
        let text = RuleText {
            item: name_of::<<P::Item as ModelTrait>::Entity>(),
            item_machine_id: <P::Item as ModelTrait>::Entity::MACHINE_ID.as_str().to_owned(),
            clauses,
        };
        // Everything that what is found, or how it is read, can differ by.
        let mut identity = format!("{} {} {}", P::SLOT, text.item, text.item_machine_id);
        for clause in &text.clauses {
            write!(identity, "\n{}", clause.sql).expect("a string can be written to");
        }
        for (by, order) in &eligible.order {
            let by = expression(dialect, by.clone())?;
            write!(identity, "\n{by} {order:?}").expect("a string can be written to");
        }
        write!(identity, "\n{}", sql.columns.bare_text()).expect("a string can be written to");
        Ok(Self {
            key: RuleKey {
                process: P::NAME,
                digest: digest(&identity),
            },
            slot: P::SLOT,
            description: P::DESCRIPTION,
            cool_down: P::COOL_DOWN,
            eligible,
            sql,
            refresh: HintRefresh::new(),
            text,
            registered: Mutex::new(Instant::now()),
        })
    }

    /// Whether it is time to write it again; then the next caller is not told so.
    pub(crate) fn is_to_be_renewed(&self, now: Instant) -> bool {
        let mut registered = locked(&self.registered);
        let is_due = now.duration_since(*registered) > RENEWED_AFTER;
        if is_due {
            *registered = now;
        }
        is_due
    }
}

impl RuleText {
    /// Whether the item is another row than the machine's own.
    pub(crate) fn has_item(&self) -> bool {
        self.item != "\"machine\""
    }

    /// The machines that it is about, with their items or, `all`, also those without: what follows FROM.
    pub(crate) fn machines(&self, all: bool) -> String {
        let Self {
            item, item_machine_id, ..
        } = self;
        if !self.has_item() {
            return item.clone();
        }
        let join = if all { "LEFT JOIN" } else { "JOIN" };
        format!("\"machine\" {join} {item} ON {item}.\"{item_machine_id}\" = \"machine\".\"machine_id\"")
    }
}

/// An expression as SQL with its values in it.
fn expression(dialect: Dialect, expression: Expr) -> Result<String, Error> {
    SqlFragment::expression(dialect, expression).with_literals(dialect)
}

/// The 64-bit FNV-1a hash (Fowler, Noll, Vo; draft-eastlake-fnv): the same in each build and version, for components of different ones share it.
fn digest(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use bmdb_entity::machine;
    use sea_orm::{ColumnTrait, Order};

    use super::*;

    #[test]
    fn digests_are_those_of_everybody_else() {
        // The vectors of the draft, appendix C.
        assert_eq!(digest(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(digest("foobar"), 0x8594_4171_f739_67e8);
    }

    struct Above {
        fence: i64,
        ordered: bool,
    }

    impl Process for Above {
        const NAME: &'static str = "above";
        type Item = machine::Model;

        fn eligible(&self, machines: Eligible) -> Eligible {
            let machines = machines.when("is above", machine::Column::Fence.gt(self.fence));
            if self.ordered {
                machines.order(Expr::col(machine::Column::Fence), Order::Desc)
            } else {
                machines
            }
        }
    }

    #[test]
    fn a_rule_is_told_apart_by_its_values_and_its_order() {
        let of = |fence, ordered| {
            Rule::of(&Above { fence, ordered }, Dialect::Postgres)
                .unwrap()
                .key
                .digest
        };
        assert_eq!(of(1, false), of(1, false));
        let all = [of(1, false), of(2, false), of(1, true), of(2, true)];
        for (nth, one) in all.iter().enumerate() {
            assert!(!all[..nth].contains(one), "{all:?}");
        }
    }

    #[test]
    fn a_rule_is_written_again_every_hour_by_one() {
        let above = Above {
            fence: 7,
            ordered: false,
        };
        let (rule, now) = (Rule::of(&above, Dialect::Postgres).unwrap(), Instant::now());
        assert!(!rule.is_to_be_renewed(now));
        let later = now + RENEWED_AFTER + Duration::from_secs(1);
        assert!(rule.is_to_be_renewed(later) && !rule.is_to_be_renewed(later));
        assert!(rule.is_to_be_renewed(later + 2 * RENEWED_AFTER));
    }

    #[test]
    fn a_clause_is_kept_as_sql_with_its_values() {
        let above = Above {
            fence: 7,
            ordered: false,
        };
        let texts = [Dialect::Sqlite, Dialect::Postgres].map(|dialect| Rule::of(&above, dialect).unwrap().text);
        assert_eq!(texts[0].clauses[0].sql, r#""machine"."fence" > 7"#);
        assert_eq!(texts[1].clauses[0].sql, r#""machine"."fence" > CAST(7 AS BIGINT)"#);
        assert_eq!(texts[0].machines(false), r#""machine""#);
    }
}
