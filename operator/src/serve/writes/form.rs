//! The form of an act, with and without a script: a question, what it will do, and why.

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::response::{Html, IntoResponse, Response};
use bmdb::Until;
use maud::{Markup, html};

use crate::answer::words::foreign;
use crate::cli::values;
use crate::failure::Failure;
use crate::serve::access::Writer;
use crate::serve::console::Console;
use crate::serve::frame;
use crate::serve::parts::text::command;
use crate::serve::router::unreadable_form;

/// What a form asks.
pub(super) struct Question<'a> {
    /// With verb and object.
    pub(super) title: Markup,
    /// The same as text, for the browser's tab.
    pub(super) tab: String,
    /// What it is now, what will happen, what cannot be called back.
    pub(super) points: Vec<Markup>,
    /// Fields of its own.
    pub(super) fields: Markup,
    /// What it was decided on, and goes along unseen.
    pub(super) seen: Vec<(&'a str, String)>,
    /// Where it is sent.
    pub(super) action: String,
    /// On the button.
    pub(super) verb: &'a str,
    pub(super) is_dangerous: bool,
    /// Where who leaves it goes.
    pub(super) back: String,
    /// The command that does the same.
    pub(super) twin: String,
}

impl Question<'_> {
    pub(super) fn page(&self, console: &Console, writer: &Writer) -> Response {
        let body = html! {
            header.head { h1 { (self.title) } }
            form.form.panel.pad method="post" action=(self.action) {
                ul.points { @for point in &self.points { li { (point) } } }
                (self.fields)
                label { "Reason " span.hint { "It is kept, and the component sees it." } input type="text" name="reason" required maxlength="4000" autocomplete="off" autofocus; }
                label { "Ticket " span.hint { "Where people can read more, if anywhere." } input type="text" name="ticket" maxlength="4000" autocomplete="off"; }
                input type="hidden" name="form" value=(writer.form_token());
                @for (name, value) in &self.seen { input type="hidden" name=(name) value=(value); }
                div.actions { a.button href=(self.back) { "Leave it" } button.(if self.is_dangerous { "danger" } else { "main" }) type="submit" { (self.verb) } }
            }
            p.quiet { "The same in a shell:" }
            (command(&self.twin))
        };
        Html(frame::plain(console, Some(&writer.who), &self.tab, &body).into_string()).into_response()
    }
}

/// For how long.
pub(super) fn span_field(open: &str) -> Markup {
    html! {
        label { "For how long " span.hint { "Such as 90s, 30m, 2h, 3d. Left empty: " (open) "." } input type="text" name="span" autocomplete="off" pattern="[0-9]+[smhd]" placeholder=(open); }
    }
}

/// What was sent.
pub(super) struct Sent(Vec<(String, String)>);

impl Sent {
    pub(super) fn read(form: Result<Form<Vec<(String, String)>>, FormRejection>) -> Result<Self, Failure> {
        form.map(|Form(pairs)| Self(pairs)).map_err(|_odd| unreadable_form())
    }

    /// A field; one that was left empty is none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// What the form carried unseen.
    pub(super) fn seen(&self, name: &str) -> Result<&str, Failure> {
        self.get(name).ok_or_else(unreadable_form)
    }

    /// What [`span_field`] asked for, and how it is said.
    pub(super) fn until(&self, open: &str) -> Result<(Until, String), Failure> {
        let Some(text) = self.get("span") else {
            return Ok((Until::Open, open.to_owned()));
        };
        let span = values::span(text).map_err(|_odd| {
            Failure::usage(format!(
                "nothing was done: {text:?} is no time. Write 90s, 30m, 2h or 3d"
            ))
        })?;
        Ok((Until::For(span.0), format!("for {}", foreign(text))))
    }

    /// Who acts, and why.
    pub(super) fn operator(&self, writer: &Writer) -> Result<bmdb::Operator, Failure> {
        let (form, reason) = (
            self.get("form").unwrap_or_default(),
            self.get("reason").unwrap_or_default(),
        );
        writer.operator(form, reason, self.get("ticket"))
    }
}
