/* Makes writing below one folder fail now and then, for the soak test. Loaded with LD_PRELOAD.
 *
 * FAULTS_DIR: the folder. FAULTS_EVERY: one call of so many fails. FAULTS_SEED: which. FAULTS_LOG: gets a byte a fault.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static unsigned long long state;

static int chance(void) {
    const char *every = getenv("FAULTS_EVERY"), *seed = getenv("FAULTS_SEED"), *log = getenv("FAULTS_LOG");
    if (!every || !seed || !log) return 0;
    pthread_mutex_lock(&turn);
    if (!state) state = strtoull(seed, 0, 10) * 0x9e3779b97f4a7c15ull | 1;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    unsigned long long number = state >> 32;
    pthread_mutex_unlock(&turn);
    if (number % strtoull(every, 0, 10)) return 0;
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    ssize_t (*real_write)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    int fd = real_open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0) {
        if (real_write(fd, "x", 1) != 1) { /* counted one too few */ }
        close(fd);
    }
    errno = number / 7 % 2 ? EIO : ENOSPC;
    return 1;
}

static int below(const char *path) {
    const char *dir = getenv("FAULTS_DIR");
    return dir && path && !strncmp(path, dir, strlen(dir));
}

static int fails(int fd) {
    char name[64], path[PATH_MAX];
    int saved = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return below(path) && chance();
}

#define REAL(name) static typeof(&name) real; if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    if (!fails(fd)) return real(fd, bytes, count);
    /* A full disk takes a part first. */
    return errno == ENOSPC && count > 1 ? real(fd, bytes, count / 2) : -1;
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { REAL(pwrite); return fails(fd) ? -1 : real(fd, bytes, count, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { REAL(pwrite64); return fails(fd) ? -1 : real(fd, bytes, count, at); }
int fsync(int fd) { REAL(fsync); return fails(fd) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return fails(fd) ? -1 : real(fd); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); return fails(fd) ? -1 : real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); return fails(fd) ? -1 : real(fd, size); }
int rename(const char *from, const char *to) { REAL(rename); return below(to) && chance() ? -1 : real(from, to); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); return below(path) && chance() ? -1 : real(path, mode); }
