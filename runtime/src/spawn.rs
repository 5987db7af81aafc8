//! Starts programs that die with this process, without copying this process's memory map for each.
//!
//! That a program is killed when `harness` dies (`PR_SET_PDEATHSIG`) can be said only by the program's own process before
//! it becomes the program. `std` forks for that, which copies the page tables: milliseconds for each step once `harness`
//! holds ten thousand. Here the new process borrows the memory until it becomes the program, as in `posix_spawn`.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

/// Bytes of stack that the new process has until it becomes the program; a few calls need little.
const STACK: usize = 64 * 1024;

/// What a program is started with.
pub struct Start<'a> {
    /// Its file.
    pub program: &'a Path,
    /// Its arguments, without its own name.
    pub arguments: &'a [String],
    /// Its whole environment.
    pub environment: &'a [(OsString, OsString)],
    /// Its folder.
    pub folder: &'a Path,
    /// Where its stdout and stderr go.
    pub output: &'a File,
}

/// A running program, in a process group of its own. Killed with its group when dropped.
pub struct Running {
    pid: i32,
    ended: Option<ExitStatus>,
}

/// What the new process needs: pointers into memory that outlives the call, and numbers.
struct Plan {
    program: *const libc::c_char,
    arguments: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    folder: *const libc::c_char,
    input: i32,
    output: i32,
    parent: i32,
    mask: libc::sigset_t,
    /// Written by the new process when it cannot become the program.
    error: i32,
}

impl Start<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// The file is no program, or the system refuses.
    pub fn spawn(&self) -> io::Result<Running> {
        match self.start(self.program, &[]) {
            // A script without a first line that names its interpreter: the shell's, as `execvp` has it.
            Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
                self.start(Path::new("/bin/sh"), &[self.program.as_os_str()])
            }
            result => result,
        }
    }

    fn start(&self, program: &Path, before: &[&OsStr]) -> io::Result<Running> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let name = text(program.as_os_str().as_bytes())?;
        let folder = text(self.folder.as_os_str().as_bytes())?;
        let mut arguments = vec![name.clone()];
        for argument in
            before.iter().map(|argument| argument.as_bytes()).chain(self.arguments.iter().map(|a| a.as_bytes()))
        {
            arguments.push(text(argument)?);
        }
        let mut environment = Vec::new();
        for (name, value) in self.environment {
            let mut entry = name.clone();
            entry.push("=");
            entry.push(value);
            environment.push(text(&entry.into_vec())?);
        }
        let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (arguments_of, environment_of) = (pointers(&arguments), pointers(&environment));
        let input = File::open("/dev/null")?;
        // Aligned by its element type, as a stack must be.
        let mut stack = vec![0u128; STACK / size_of::<u128>()];
        // SAFETY: an all-zero set is a valid value that the call below overwrites.
        let mask = unsafe { std::mem::zeroed() };
        let mut plan = Plan {
            program: name.as_ptr(),
            arguments: arguments_of.as_ptr(),
            environment: environment_of.as_ptr(),
            folder: folder.as_ptr(),
            input: input.as_raw_fd(),
            output: self.output.as_raw_fd(),
            parent: std::process::id() as i32,
            mask,
            error: 0,
        };
        // SAFETY: with CLONE_VFORK this thread sleeps until the new process has become the program or ended, so all that
        // `plan` points to, and the stack, live long enough and nobody else touches them. Signals are blocked meanwhile:
        // no handler of this process runs in the borrowed memory. `child` makes async-signal-safe calls only.
        let pid = unsafe {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut plan.mask);
            let top = stack.as_mut_ptr().add(stack.len()).cast::<libc::c_void>();
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let pid = libc::clone(child, top, flags, (&raw mut plan).cast());
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, &plan.mask, std::ptr::null_mut());
            if pid < 0 {
                return Err(error);
            }
            pid
        };
        let mut running = Running { pid, ended: None };
        // SAFETY: the new process may have written it; it does not any more.
        let error = unsafe { std::ptr::read_volatile(&raw const plan.error) };
        if error != 0 {
            running.wait(0)?;
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(running)
    }
}

/// Runs in the new process, on memory borrowed from the parent.
extern "C" fn child(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: see `start`.
    unsafe {
        let plan = plan.cast::<Plan>();
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        // Handlers of this process must not run here once signals come again, and nobody inherits what it ignores.
        for signal in
            [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE, libc::SIGQUIT, libc::SIGSEGV, libc::SIGBUS]
        {
            libc::sigaction(signal, &default, std::ptr::null_mut());
        }
        let ready = libc::setpgid(0, 0) == 0
            && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
            && libc::chdir((*plan).folder) == 0
            && libc::dup2((*plan).input, 0) >= 0
            && libc::dup2((*plan).output, 1) >= 0
            && libc::dup2((*plan).output, 2) >= 0
            && libc::sigprocmask(libc::SIG_SETMASK, &(*plan).mask, std::ptr::null_mut()) == 0;
        // Killed in between: nobody would tell this process any more.
        if ready && libc::getppid() == (*plan).parent {
            libc::execve((*plan).program, (*plan).arguments, (*plan).environment);
        }
        (*plan).error = *libc::__errno_location();
        libc::_exit(127)
    }
}

impl Running {
    /// Its number; its group has the same.
    pub fn id(&self) -> i32 {
        self.pid
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system knows no such child.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait(libc::WNOHANG)
    }

    fn wait(&mut self, flags: i32) -> io::Result<Option<ExitStatus>> {
        while self.ended.is_none() {
            let mut status = 0;
            // SAFETY: plain numbers, and a place for one.
            match unsafe { libc::waitpid(self.pid, &mut status, flags) } {
                0 => return Ok(None),
                pid if pid == self.pid => self.ended = Some(ExitStatus::from_raw(status)),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(self.ended)
    }

    /// Sends a signal to its group.
    pub fn signal(&self, signal: i32) {
        // SAFETY: plain numbers; the group is its own.
        unsafe { libc::kill(-self.pid, signal) };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.signal(libc::SIGKILL);
            let _ = self.wait(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &str, arguments: &[&str]) -> io::Result<(Option<i32>, String)> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("out");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut running = Start {
            program: Path::new(program),
            arguments: &arguments,
            environment: &[("WORD".into(), "a b".into())],
            folder: folder.path(),
            output: &File::create(&path)?,
        }
        .spawn()?;
        let status = running.wait(0)?;
        Ok((status.and_then(|status| status.code()), std::fs::read_to_string(path)?))
    }

    #[test]
    fn programs_get_what_they_are_given_and_nothing_else() {
        let script = "echo \"$1 $WORD\"; env | cut -d= -f1 | sort | tr '\\n' ' '; ls; exit 3";
        let (code, text) = start("/bin/sh", &["-c", script, "sh", "x"]).unwrap();
        assert_eq!((code, text.as_str()), (Some(3), "x a b\nPWD WORD out\n"));
    }

    #[test]
    fn what_is_no_program_says_so() {
        assert_eq!(start("/no/such/program", &[]).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(start("/etc/passwd", &[]).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
