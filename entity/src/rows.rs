//! A file for each table, named as the table.

pub(crate) mod machine;
pub(crate) mod machine_agent_heartbeat;
pub(crate) mod machine_agent_started;
pub(crate) mod machine_hardware_report;
pub(crate) mod machine_os_installation_report;
pub(crate) mod machine_os_installation_request;
pub(crate) mod machine_provided;
pub(crate) mod operation;
pub(crate) mod process;
pub(crate) mod process_pause;
pub(crate) mod process_rule;
pub(crate) mod session;
pub(crate) mod session_lease;
pub(crate) mod session_sighting;
pub(crate) mod work;
pub(crate) mod work_backoff;
pub(crate) mod work_candidate;
pub(crate) mod work_history;
pub(crate) mod work_hold;
pub(crate) mod work_retrieval;
