//! `plim`: the command line of Plimsoll. The only room that prints.

mod audit;
mod client;
mod cluster;
mod commands;
mod data;
mod kubeconfig;
mod log;
mod output;
mod parts;
mod pki;
mod plan;
mod progress;
mod serve;
mod up;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commands::{build, cost, exec, image, logs, ps, run, status, top, why};
use data::Data;

/// Objects are trees of small pieces, made by one thread and often dropped by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Containers, images, a Kubernetes-compatible cluster, and what it costs, in one program.
#[derive(Parser)]
#[command(name = "plim", version, arg_required_else_help = true)]
struct Cli {
    /// The cluster's state folder.
    #[arg(long, global = true, default_value = data::DEFAULT, env = "PLIM_DATA", value_name = "DIR")]
    data: std::path::PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster on this machine.
    #[command(after_help = up::UP_EXAMPLES)]
    Up(up::Up),
    /// Start the control plane alone: API server, store, scheduler and controllers.
    #[command(after_help = up::SERVER_EXAMPLES)]
    Server(up::Server),
    /// Stop the cluster.
    #[command(after_help = up::DOWN_EXAMPLES)]
    Down(up::Down),
    /// Run the control loops alone, for an API server somewhere else.
    #[command(after_help = parts::CONTROLLERS_EXAMPLES)]
    Controllers(parts::Controllers),
    /// Run the scheduler alone, for an API server somewhere else.
    #[command(after_help = parts::SCHEDULER_EXAMPLES)]
    Scheduler(parts::Scheduler),
    /// Make this machine a node of an API server somewhere else.
    #[command(after_help = parts::AGENT_EXAMPLES)]
    Agent(parts::Agent),
    /// Print the administrator's kubeconfig.
    #[command(after_help = "Example:\n  plim kubeconfig > ~/.kube/config && kubectl get namespaces")]
    Kubeconfig,
    /// The cluster on one screen.
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusCommand),
    /// Build an image from a Dockerfile.
    #[command(after_help = build::EXAMPLES)]
    Build(build::BuildCommand),
    /// Images in the cluster's own store.
    #[command(subcommand, after_help = image::EXAMPLES)]
    Image(image::ImageCommand),
    /// Run a container from an image.
    #[command(after_help = run::EXAMPLES)]
    Run(run::Run),
    /// What runs.
    #[command(after_help = ps::EXAMPLES)]
    Ps(ps::Ps),
    /// What a pod, or every pod of a workload, says.
    #[command(after_help = logs::EXAMPLES)]
    Logs(logs::Logs),
    /// Run a command in a running container.
    #[command(after_help = exec::EXAMPLES)]
    Exec(exec::Exec),
    /// Why something does not run, or does not answer.
    #[command(after_help = why::EXAMPLES)]
    Why(why::Why),
    /// What was asked for against what is used.
    #[command(after_help = top::EXAMPLES)]
    Top(top::Top),
    /// What runs, what it was given, what it used, and what that costs.
    #[command(after_help = cost::EXAMPLES)]
    Cost(cost::Cost),
    /// What a list of VMs costs, and which machines would carry the same load.
    #[command(after_help = plan::EXAMPLES)]
    Plan(plan::Plan),
    /// Print a completion script.
    #[command(after_help = "Example:\n  source <(plim completion bash)")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// A panic ends the program, so that nothing goes on without what has gone; but one of a request ends that request.
fn end_at_a_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        if !apiserver::contained() {
            std::process::abort();
        }
    }));
}

fn main() -> ExitCode {
    end_at_a_panic();
    // A holder has one thread and little memory: it is told apart before anything else is done.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == cluster::node::HOLDER) {
        return match runtime::holder::dir_of_arguments(arguments) {
            Some(dir) => runtime::holder::main(&dir),
            None => ExitCode::FAILURE,
        };
    }
    let cli = Cli::parse();
    let data = Data::at(cli.data);
    let done = |result: anyhow::Result<()>| result.map(|()| 0);
    let result = match cli.command {
        Command::Up(up) => done(up.run(&data)),
        Command::Server(server) => done(server.run(&data)),
        Command::Down(down) => done(down.run(&data)),
        Command::Controllers(part) => done(part.run()),
        Command::Scheduler(part) => done(part.run()),
        Command::Agent(agent) => done(agent.run(&data)),
        Command::Kubeconfig => done(kubeconfig::print(&data)),
        Command::Status(command) => done(command.run(&data)),
        Command::Build(command) => done(command.run(&data)),
        Command::Image(command) => done(command.run(&data)),
        Command::Run(command) => command.run(&data),
        Command::Ps(command) => done(command.run(&data)),
        Command::Logs(command) => done(command.run(&data)),
        Command::Exec(command) => command.run(&data),
        Command::Why(command) => command.run(&data),
        Command::Top(command) => done(command.run(&data)),
        Command::Cost(command) => done(command.run(&data)),
        Command::Plan(plan) => done(plan.run()),
        Command::Completion { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "plim", &mut std::io::stdout());
            Ok(0)
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("plim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
