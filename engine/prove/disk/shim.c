/* A disk that can be watched, and that can break: loaded into a process with LD_PRELOAD.

   It stands between the program and the C library for the calls that change files, and looks only
   at files whose path begins with a prefix. Everything else passes untouched. It is told what to do
   by the environment, read when the library is loaded and again at each call of `disk_configure`:

       CARSTORE_DISK_PREFIX   paths that begin with this are watched; empty: none
       CARSTORE_DISK_TRACE    a file to which every operation that was done is appended
       CARSTORE_DISK_FAULT    kill-before, kill-after, tear, fail-once, fail-from, or full
       CARSTORE_DISK_ON       which operations are counted: any (default), write, or sync
       CARSTORE_DISK_ONLY     count only files whose path ends with this
       CARSTORE_DISK_AT       the number, from 1, of the operation that the fault meets
       CARSTORE_DISK_KEEP     tear: how many bytes of the write reach the file before the process dies
                              (modulo the length of the write, so that some are always missing)
       CARSTORE_DISK_ROOM     full: by how many bytes files may still grow
       CARSTORE_DISK_FREED    full: while a file of this name exists, there is room without end

   Operations are counted, done and recorded under one lock, which processes that share a trace
   share too (flock). So a trace is an order in which everything could have happened one by one, and
   a process that kills itself lets no other thread slip by: it dies holding the lock.

   A record of the trace is a header (see `struct record`), the path, and the data of a write. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Some C libraries define these names as macros of the plain ones. */
#undef open64
#undef openat64
#undef creat64
#undef pwrite64
#undef ftruncate64

#define MOST_FILES 4096 /* file descriptors above this are not watched */
#define LONGEST_PATH 512

enum fault { NONE, KILL_BEFORE, KILL_AFTER, TEAR, FAIL_ONCE, FAIL_FROM, FULL };

struct record {      /* as in trace.py */
    char op;         /* C create, W write, T truncate, S sync, U unlink, R rename, N note */
    char unused[3];
    uint32_t path;   /* bytes of the path that follow; of a rename: "from\0to" */
    uint64_t offset; /* of a write; of a truncate, the new length */
    uint64_t length; /* bytes of data that follow the path */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char prefix[LONGEST_PATH], only[64], freed[LONGEST_PATH];
static enum fault fault;
static char counted; /* 'a' any, 'w' writes, 's' syncs */
static long at, keep, count;
static int64_t room;
static int trace = -1;
static char watched[MOST_FILES][LONGEST_PATH]; /* the path behind each descriptor, or "" */

/* The function of the C library that ours stands in front of. */
#define REAL(name, type) ((type)real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

static int real_open(const char *path, int flags, mode_t mode)
{
    return REAL(open, int (*)(const char *, int, ...))(path, flags, mode);
}

static ssize_t real_write(int fd, const void *data, size_t length)
{
    return REAL(write, ssize_t (*)(int, const void *, size_t))(fd, data, length);
}

static ssize_t real_pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return REAL(pwrite, ssize_t (*)(int, const void *, size_t, off_t))(fd, data, length, offset);
}

/* --- what the environment says --- */

static void copy_setting(char *to, size_t size, const char *name)
{
    const char *value = getenv(name);
    if (value && strlen(value) >= size)
        abort(); /* a setting that is cut short would watch other files */
    strcpy(to, value ? value : "");
}

static long number(const char *name)
{
    const char *value = getenv(name);
    return value ? atol(value) : 0;
}

static enum fault fault_of(const char *name)
{
    static const char *const names[] = {"",          "kill-before", "kill-after", "tear",
                                        "fail-once", "fail-from",   "full"};
    for (int i = 0; i < 7; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum fault)i;
    abort();
}

__attribute__((constructor)) void disk_configure(void)
{
    char word[32], path[LONGEST_PATH];
    pthread_mutex_lock(&lock);
    copy_setting(prefix, sizeof prefix, "CARSTORE_DISK_PREFIX");
    copy_setting(only, sizeof only, "CARSTORE_DISK_ONLY");
    copy_setting(freed, sizeof freed, "CARSTORE_DISK_FREED");
    copy_setting(word, sizeof word, "CARSTORE_DISK_FAULT");
    fault = fault_of(word);
    copy_setting(word, sizeof word, "CARSTORE_DISK_ON");
    counted = word[0] ? word[0] : 'a';
    at = number("CARSTORE_DISK_AT");
    keep = number("CARSTORE_DISK_KEEP");
    room = number("CARSTORE_DISK_ROOM");
    count = 0;
    copy_setting(path, sizeof path, "CARSTORE_DISK_TRACE");
    if (trace >= 0)
        close(trace);
    trace = path[0] ? real_open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    pthread_mutex_unlock(&lock);
}

/* How many operations have been counted since the library was told what to do. */
long disk_count(void)
{
    pthread_mutex_lock(&lock);
    long counted_so_far = count;
    pthread_mutex_unlock(&lock);
    return counted_so_far;
}

/* --- the lock and the trace --- */

static void begin(void)
{
    pthread_mutex_lock(&lock);
    if (trace >= 0)
        flock(trace, LOCK_EX);
}

static void end(void)
{
    int kept = errno; /* of the operation, for its caller */
    if (trace >= 0)
        flock(trace, LOCK_UN);
    pthread_mutex_unlock(&lock);
    errno = kept;
}

static void record(char op, const char *path, size_t path_length, uint64_t offset,
                   const void *data, uint64_t length)
{
    struct record header = {op, {0, 0, 0}, (uint32_t)path_length, offset, length};
    struct iovec parts[] = {{&header, sizeof header},
                            {(void *)path, path_length},
                            {(void *)data, (size_t)length}};
    if (trace < 0)
        return;
    /* A trace with a hole in it proves nothing. */
    if (writev(trace, parts, 3) != (ssize_t)(sizeof header + path_length + length))
        abort();
}

/* Put a word of the program into the trace, between the operations before and after it. */
void disk_note(const char *text)
{
    begin();
    record('N', text, strlen(text), 0, NULL, 0);
    end();
}

/* --- the faults --- */

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static int ends_with(const char *path, const char *tail)
{
    size_t all = strlen(path), part = strlen(tail);
    return part <= all && strcmp(path + all - part, tail) == 0;
}

/* Count an operation of `kind` ('w' or 's'); whether it is the one that the fault is meant for. */
static int is_met(char kind, const char *path)
{
    if ((counted != 'a' && counted != kind) || !ends_with(path, only))
        return 0;
    count++;
    return fault == FAIL_FROM ? count >= at : count == at;
}

static int fails(int met)
{
    if (met && (fault == FAIL_ONCE || fault == FAIL_FROM)) {
        errno = EIO;
        return 1;
    }
    if (met && (fault == KILL_BEFORE || (fault == TEAR && keep == 0)))
        die();
    return 0;
}

static void survived(int met)
{
    if (met && (fault == KILL_AFTER || fault == TEAR))
        die();
}

/* How much of a write fits: only what makes the file longer takes room. */
static int64_t fitting(int fd, uint64_t offset, size_t length)
{
    struct stat status;
    if (fault != FULL || access(freed, F_OK) == 0 || fstat(fd, &status) != 0)
        return (int64_t)length;
    int64_t longer = (int64_t)(offset + length) - status.st_size;
    if (longer <= 0)
        return (int64_t)length;
    int64_t granted = longer < room ? longer : room;
    int64_t fits = (int64_t)length - (longer - granted);
    room -= granted;
    return fits > 0 ? fits : 0;
}

/* A write at `offset`, or where the descriptor stands if `here`. */
static ssize_t watched_write(int fd, const char *data, size_t length, off_t offset, int here)
{
    ssize_t done = -1;
    begin();
    int met = is_met('w', watched[fd]);
    if (!fails(met)) {
        if (here)
            offset = lseek(fd, 0, SEEK_CUR);
        int64_t most = fitting(fd, (uint64_t)offset, length);
        if (met && fault == TEAR && length > 0)
            most = keep % (int64_t)length;
        if (most == 0 && length > 0)
            errno = ENOSPC;
        else
            done = here ? real_write(fd, data, (size_t)most)
                        : real_pwrite(fd, data, (size_t)most, offset);
        if (done >= 0)
            record('W', watched[fd], strlen(watched[fd]), (uint64_t)offset, data, (uint64_t)done);
        survived(met);
    }
    end();
    return done;
}

static int watched_sync(int fd, const char *name)
{
    int failed = -1;
    begin();
    int met = is_met('s', watched[fd]);
    if (!fails(met)) {
        failed = ((int (*)(int))real(name))(fd);
        if (failed == 0)
            record('S', watched[fd], strlen(watched[fd]), 0, NULL, 0);
        survived(met);
    }
    end();
    return failed;
}

static int watched_truncate(int fd, off_t length)
{
    int failed = -1;
    begin();
    int met = is_met('w', watched[fd]);
    if (!fails(met)) {
        failed = REAL(ftruncate, int (*)(int, off_t))(fd, length);
        if (failed == 0)
            record('T', watched[fd], strlen(watched[fd]), (uint64_t)length, NULL, 0);
        survived(met);
    }
    end();
    return failed;
}

/* --- which files are looked at --- */

static int is_watched_path(const char *path)
{
    return prefix[0] && strncmp(path, prefix, strlen(prefix)) == 0;
}

static int is_watched(int fd)
{
    return fd >= 0 && fd < MOST_FILES && watched[fd][0];
}

static int watched_open(const char *path, int flags, mode_t mode)
{
    if (!is_watched_path(path)) {
        int fd = real_open(path, flags, mode);
        if (fd >= 0 && fd < MOST_FILES)
            watched[fd][0] = 0;
        return fd;
    }
    begin();
    int is_new = (flags & O_CREAT) && access(path, F_OK) != 0;
    int fd = real_open(path, flags, mode);
    if (fd >= MOST_FILES || strlen(path) >= LONGEST_PATH)
        abort();
    if (fd >= 0) {
        strcpy(watched[fd], path);
        if (is_new)
            record('C', path, strlen(path), 0, NULL, 0);
        else if (flags & O_TRUNC)
            record('T', path, strlen(path), 0, NULL, 0);
    }
    end();
    return fd;
}

static mode_t mode_of(int flags, va_list rest)
{
    return flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? (mode_t)va_arg(rest, int) : 0;
}

/* --- what the program calls --- */

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return watched_open(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return watched_open(path, flags | O_LARGEFILE, mode);
}

static int open_in(int folder, const char *path, int flags, mode_t mode)
{
    if (path[0] == '/' || folder == AT_FDCWD)
        return watched_open(path, flags, mode);
    return REAL(openat, int (*)(int, const char *, int, ...))(folder, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return open_in(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return open_in(folder, path, flags | O_LARGEFILE, mode);
}

int creat(const char *path, mode_t mode)
{
    return watched_open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode)
{
    return watched_open(path, O_CREAT | O_WRONLY | O_TRUNC | O_LARGEFILE, mode);
}

int close(int fd)
{
    if (fd >= 0 && fd < MOST_FILES)
        watched[fd][0] = 0;
    return REAL(close, int (*)(int))(fd);
}

ssize_t write(int fd, const void *data, size_t length)
{
    return is_watched(fd) ? watched_write(fd, data, length, 0, 1) : real_write(fd, data, length);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return is_watched(fd) ? watched_write(fd, data, length, offset, 0)
                          : real_pwrite(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    return pwrite(fd, data, length, (off_t)offset);
}

int ftruncate(int fd, off_t length)
{
    return is_watched(fd) ? watched_truncate(fd, length)
                          : REAL(ftruncate, int (*)(int, off_t))(fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    return ftruncate(fd, (off_t)length);
}

int fsync(int fd)
{
    return is_watched(fd) ? watched_sync(fd, "fsync") : REAL(fsync, int (*)(int))(fd);
}

int fdatasync(int fd)
{
    return is_watched(fd) ? watched_sync(fd, "fdatasync") : REAL(fdatasync, int (*)(int))(fd);
}

int unlink(const char *path)
{
    int (*really)(const char *) = REAL(unlink, int (*)(const char *));
    int failed = -1;
    if (!is_watched_path(path))
        return really(path);
    begin();
    int met = is_met('w', path);
    if (!fails(met)) {
        failed = really(path);
        if (failed == 0)
            record('U', path, strlen(path), 0, NULL, 0);
        survived(met);
    }
    end();
    return failed;
}

int rename(const char *from, const char *to)
{
    int (*really)(const char *, const char *) = REAL(rename, int (*)(const char *, const char *));
    char both[2 * LONGEST_PATH];
    int failed = -1;
    if (!is_watched_path(from) && !is_watched_path(to))
        return really(from, to);
    if (strlen(from) + strlen(to) + 2 > sizeof both)
        abort();
    begin();
    int met = is_met('w', to);
    if (!fails(met)) {
        failed = really(from, to);
        size_t split = strlen(from) + 1;
        strcpy(both, from);
        strcpy(both + split, to);
        if (failed == 0)
            record('R', both, split + strlen(to), 0, NULL, 0);
        survived(met);
    }
    end();
    return failed;
}
