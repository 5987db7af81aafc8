//! A Slurm of one node on loopback, without systemd, cgroups or a database: for tests that run steps through a real one.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The Debian packages that have what is needed.
pub const PACKAGES: &str = "slurmctld slurmd slurm-client";

/// A running Slurm; ended when dropped.
pub struct Slurm {
    dir: tempfile::TempDir,
    daemons: Vec<std::process::Child>,
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|dir| dir.join(program).is_file())
}

/// A port that nobody listens on now.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_or(16_817, |at| at.port())
}

impl Slurm {
    /// Starts one; none, with a printed word, where its packages are missing or this user may not run it.
    ///
    /// # Panics
    /// It is there and does not start.
    pub fn start() -> Option<Self> {
        let missing: Vec<&str> =
            ["slurmctld", "slurmd", "sbatch", "squeue", "scancel"].into_iter().filter(|name| !has(name)).collect();
        // SAFETY: takes nothing and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        if !missing.is_empty() || !root {
            let why = if root { format!("{} missing", missing.join(", ")) } else { "slurmd needs root".into() };
            eprintln!("skipped: no Slurm to test with: {why} (Debian packages: {PACKAGES})");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().display();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
        let host = host.trim().split('.').next().unwrap_or("localhost").to_string();
        let text = format!(
            "ClusterName=one\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nAuthType=auth/none\nCredType=cred/none\n\
             StateSaveLocation={place}/ctld\nSlurmdSpoolDir={place}/d\nSlurmctldPidFile={place}/slurmctld.pid\n\
             SlurmdPidFile={place}/slurmd.pid\nSlurmctldLogFile={place}/slurmctld.log\nSlurmdLogFile={place}/slurmd.log\n\
             SlurmctldPort={}\nSlurmdPort={}\nProctrackType=proctrack/linuxproc\nMpiDefault=none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nKillWait=5\n\
             SchedulerParameters=sched_interval=1,sched_min_interval=0\nMinJobAge=60\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN\n\
             PartitionName=main Nodes={host} Default=YES State=UP\nPartitionName=spare Nodes={host} State=UP\n",
            port(),
            port()
        );
        std::fs::write(dir.path().join("slurm.conf"), text).expect("the configuration can be written");
        for folder in ["ctld", "d"] {
            std::fs::create_dir(dir.path().join(folder)).expect("a folder can be made");
        }
        let mut slurm = Self { dir, daemons: Vec::new() };
        slurm.daemon("slurmctld", &[]);
        slurm.daemon("slurmd", &["-N", &host]);
        let start = Instant::now();
        while !slurm.ask("sinfo", &["-h", "-o", "%T"]).contains("idle") {
            if start.elapsed() > Duration::from_secs(60) {
                let log = |name: &str| std::fs::read_to_string(slurm.dir.path().join(name)).unwrap_or_default();
                panic!("Slurm does not start:\n{}\n{}", log("slurmctld.log"), log("slurmd.log"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(slurm)
    }

    fn daemon(&mut self, name: &str, arguments: &[&str]) {
        // In the foreground, so that it ends with the test.
        let mut command = Command::new(name);
        command.arg("-D").args(["-f", &self.configuration()]).args(arguments);
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.daemons.push(child.unwrap_or_else(|error| panic!("{name}: {error}")));
    }

    /// Its configuration, for `SLURM_CONF`.
    pub fn configuration(&self) -> String {
        self.dir.path().join("slurm.conf").display().to_string()
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What one of its commands prints.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).env("SLURM_CONF", self.configuration()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        self.ask("scancel", &["--user=root"]);
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
