//! `project`: the visibility and members of the projects of a served repository.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::{Context, parse};
use super::output::table;
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::access::{ProjectAccess, Role};
use artifactfs::model::name::UserName;
use artifactfs::ops::access;

#[derive(Subcommand)]
pub enum ProjectVerb {
    /// List the projects that you may see, with their visibility
    Ls,
    /// Change the visibility of a project
    Set(Set),
    /// List, add or remove the members of a project
    #[command(subcommand)]
    Member(MemberVerb),
}

#[derive(Args)]
pub struct Set {
    /// The project, which need not exist yet
    project: String,
    /// private: members only; team: the team; public: all users read, the team writes; open: all
    /// users read and write
    #[arg(long, value_name = "WHO")]
    visibility: String,
}

#[derive(Subcommand)]
pub enum MemberVerb {
    /// List the members
    Ls {
        /// The project
        project: String,
    },
    /// Add a member, or change the role of one
    Add {
        /// The project, which need not exist yet
        project: String,
        /// The user
        user: String,
        /// The role in this project: reader, writer or admin
        #[arg(long, default_value = "writer")]
        role: String,
    },
    /// Remove a member
    Rm {
        /// The project
        project: String,
        /// The user
        user: String,
    },
}

pub fn project(context: &Context, verb: ProjectVerb) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let found = match verb {
        ProjectVerb::Ls => access::projects(&repository)?,
        ProjectVerb::Set(Set { project, visibility }) => {
            vec![access::set_visibility(&repository, parse(&project)?, parse(&visibility)?)?]
        }
        ProjectVerb::Member(verb) => {
            let changed = match verb {
                MemberVerb::Ls { project } => access::project(&repository, parse(&project)?)?,
                MemberVerb::Add { project, user, role } => {
                    let role = member_role(&role)?;
                    access::set_member(&repository, parse(&project)?, parse(&user)?, Some(role))?
                }
                MemberVerb::Rm { project, user } => {
                    access::set_member(&repository, parse(&project)?, parse(&user)?, None)?
                }
            };
            print_members(context, &changed);
            return Ok(exit::DONE);
        }
    };
    context.output.print(found.iter().map(project_json).collect(), || {
        let row = |access: &ProjectAccess| {
            let members = access.members.keys().map(ToString::to_string).collect::<Vec<_>>();
            vec![access.project.to_string(), access.visibility.to_string(), members.join(" ")]
        };
        table(&found.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

/// Parses the role of a member, who is never a guest.
fn member_role(text: &str) -> Result<Role> {
    match parse(text)? {
        Role::Guest => Err(Error::new(Kind::Usage, "a member of a project is no guest")
            .hint("say reader, writer or admin")),
        role => Ok(role),
    }
}

fn print_members(context: &Context, access: &ProjectAccess) {
    context.output.print(project_json(access), || {
        let row = |(user, role): (&UserName, &Role)| vec![user.to_string(), role.to_string()];
        table(&access.members.iter().map(row).collect::<Vec<_>>())
    });
}

fn project_json(access: &ProjectAccess) -> Value {
    let ProjectAccess { project, visibility, members, .. } = access;
    json!({ "project": project, "visibility": visibility, "members": members })
}
