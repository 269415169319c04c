/*
 * Makes chosen system calls of a process fail, while a file says so.
 *
 * Preloaded (LD_PRELOAD) into the daemon by the tests (tests/common/faults.rs). A seccomp filter turns each
 * positioned write, each sync and, where asked to, each read and more into a SIGSYS, whose handler
 * either answers with the fault or makes the call after all. So it also catches calls that do not go
 * through the C library, and needs no privilege. A thread that blocks SIGSYS must make none of these
 * calls: it would end the process.
 *
 *   FAULT_DIR      while this directory holds a file named
 *                    full  writes write a part and then fail with ENOSPC
 *                    sync  fdatasync and fsync fail with EIO
 *                    hang  fdatasync and fsync do not return before it is gone
 *                    torn  a write writes a part, and the process is killed
 *                    unreadable
 *                          reads that touch a range of bytes fail with EIO: each line of the file
 *                          is `NAME FROM TO`, part of a path and a range without its end
 *                    step  the process is killed at the operation of this number (in the file) on
 *                          the files concerned, counted from when the file is there: opening,
 *                          renaming and removing count, too, and a write writes a part
 *   FAULT_UNDER    the only files concerned: those whose path begins with this
 *   FAULT_READS    set where `unreadable` is to be obeyed: it means more system calls to catch, and the
 *                  process can execute no other program, which reads before it could catch them
 *   FAULT_STEPS    set where `step` is to be obeyed: it means more system calls to catch
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* The sixth argument of the calls the handler makes itself: no call it makes has one. */
#define OURS 0x57415950u

/* The lines of `unreadable`, all together. */
#define MAX_LINES 65536

static char full[PATH_MAX], torn[PATH_MAX], failing_sync[PATH_MAX], hang[PATH_MAX], step[PATH_MAX],
    unreadable[PATH_MAX], under[PATH_MAX];

#if defined(__x86_64__)
#define RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
static void arguments(ucontext_t *context, long out[5]) {
    static const int registers[5] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8};
    for (int at = 0; at < 5; at++) out[at] = context->uc_mcontext.gregs[registers[at]];
}
#elif defined(__aarch64__)
#define RESULT(context) ((context)->uc_mcontext.regs[0])
static void arguments(ucontext_t *context, long out[5]) {
    for (int at = 0; at < 5; at++) out[at] = context->uc_mcontext.regs[at];
}
#else
#error "say where this machine keeps a system call's arguments and result"
#endif

static long call(long number, const long a[5]) {
    /* Those two have a sixth argument, flags: without them they are these two. */
    if (number == SYS_preadv2) number = SYS_preadv;
    if (number == SYS_pwritev2) number = SYS_pwritev;
    long result = syscall(number, a[0], a[1], a[2], a[3], a[4], (long)OURS);
    return result < 0 ? -errno : result;
}

static int armed(const char *path) {
    return access(path, F_OK) == 0;
}

/* Writes the path of the descriptor's file; whether there is one. */
static int path_behind(int descriptor, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0;
}

/* Whether the descriptor's file is one of those concerned. */
static int concerned(int descriptor) {
    char path[PATH_MAX];
    return path_behind(descriptor, path) && strncmp(path, under, strlen(under)) == 0;
}

/* The call's path, where it has one: of those that it may name two of, the first. */
static const char *path_of(long number, const long a[5]) {
    switch (number) {
#ifdef SYS_rename
    case SYS_rename:
    case SYS_unlink:
    case SYS_mkdir:
        return (const char *)a[0];
#endif
    case SYS_openat:
    case SYS_mkdirat:
    case SYS_unlinkat:
    case SYS_renameat:
    case SYS_renameat2:
        return (const char *)a[1];
    default:
        return NULL;
    }
}

/* Whether the path leads to one of the files concerned. */
static int path_concerned(const char *path) {
    char whole[2 * PATH_MAX];
    if (path[0] == '/') return strncmp(path, under, strlen(under)) == 0;
    ssize_t length = readlink("/proc/self/cwd", whole, PATH_MAX);
    if (length < 0) return 0;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return strncmp(whole, under, strlen(under)) == 0;
}

/* Reads a file of FAULT_DIR as text; whether there is any. */
static int text_of(const char *path, char *text, size_t size) {
    const long opening[5] = {AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0};
    long descriptor = call(SYS_openat, opening);
    if (descriptor < 0) return 0;
    const long reading[5] = {descriptor, (long)text, (long)size - 1, 0, 0};
    long length = call(SYS_read, reading);
    close((int)descriptor);
    text[length < 0 ? 0 : length] = 0;
    return length > 0;
}

/* Whether this operation on a file concerned is the one to be killed at. */
static int is_the_step(void) {
    static atomic_long steps;
    char text[16];
    return text_of(step, text, sizeof text) && atomic_fetch_add(&steps, 1) + 1 == atol(text);
}

/* Whether the call reads. */
static int reads(long number) {
    return number == SYS_read || number == SYS_readv || number == SYS_pread64 ||
           number == SYS_preadv || number == SYS_preadv2;
}

/* Whether a read touches bytes that cannot be read. */
static int touches_unreadable(long number, const long a[5]) {
    static _Thread_local char text[MAX_LINES];
    char path[PATH_MAX];
    if (!text_of(unreadable, text, sizeof text) || !path_behind((int)a[0], path)) return 0;
    int positioned = number != SYS_read && number != SYS_readv;
    long long from = positioned ? a[3] : lseek((int)a[0], 0, SEEK_CUR), length = 0;
    if (number == SYS_read || number == SYS_pread64) {
        length = a[2];
    } else {
        const struct iovec *buffers = (const struct iovec *)a[1];
        for (long at = 0; at < a[2]; at++) length += buffers[at].iov_len;
    }
    char *rest;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *name_end = strchr(line, ' '), *low_end;
        if (!name_end) continue;
        *name_end = 0;
        long long low = strtoll(name_end + 1, &low_end, 10), high = strtoll(low_end, NULL, 10);
        if (strstr(path, line) && from < high && low < from + length) return 1;
    }
    return 0;
}

/* Writes half of the first buffer, as a disk does that fills up or a process that dies. */
static long write_part(long number, const long a[5]) {
    if (number == SYS_pwrite64 || number == SYS_write) {
        const long part[5] = {a[0], a[1], a[2] / 2, a[3], 0};
        return call(number, part);
    }
    struct iovec first = *(const struct iovec *)a[1];
    first.iov_len /= 2;
    const long part[5] = {a[0], (long)&first, 1, a[3], a[4]};
    return call(number, part);
}

static long answer(long number, const long a[5]) {
    static _Thread_local int parts;
    if (reads(number)) {
        if (!armed(unreadable) || !concerned((int)a[0])) return call(number, a);
        return touches_unreadable(number, a) ? -EIO : call(number, a);
    }
    const char *path = path_of(number, a);
    if (!(path ? path_concerned(path) : concerned((int)a[0]))) return call(number, a);
    int writes = number == SYS_write || number == SYS_pwrite64 || number == SYS_pwritev ||
                 number == SYS_pwritev2;
    if (armed(step) && is_the_step()) {
        if (writes) write_part(number, a);
        kill(getpid(), SIGKILL);
    }
    if (!writes && number != SYS_fdatasync && number != SYS_fsync) return call(number, a);
    if (number == SYS_fdatasync || number == SYS_fsync) {
        /* Other signals interrupt the pause: their handlers run, and it goes on. */
        while (armed(hang)) usleep(5000);
        return armed(failing_sync) ? -EIO : call(number, a);
    }
    if (armed(torn)) {
        write_part(number, a);
        kill(getpid(), SIGKILL);
    }
    if (!armed(full)) return call(number, a);
    return ++parts % 2 ? write_part(number, a) : -ENOSPC;
}

static void caught(int signal, siginfo_t *info, void *place) {
    (void)signal;
    ucontext_t *context = place;
    long a[5];
    int before = errno;
    arguments(context, a);
    RESULT(context) = answer(info->si_syscall, a);
    errno = before;
}

static void fail(const char *what) {
    perror(what);
    _exit(127);
}

static void name(char *out, const char *dir, const char *file) {
    if (snprintf(out, PATH_MAX, "%s/%s", dir, file) >= PATH_MAX) fail("FAULT_DIR is too long");
}

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("FAULT_DIR"), *where = getenv("FAULT_UNDER");
    if (!dir || !where) return;
    name(full, dir, "full");
    name(torn, dir, "torn");
    name(failing_sync, dir, "sync");
    name(hang, dir, "hang");
    name(unreadable, dir, "unreadable");
    name(step, dir, "step");
    name(under, where, "");

    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_RESTART};
    if (sigaction(SIGSYS, &action, NULL)) fail("sigaction");
    static const unsigned always[] = {
        SYS_pwritev, SYS_pwritev2, SYS_pwrite64, SYS_fdatasync, SYS_fsync,
    };
    static const unsigned for_reads[] = {SYS_read, SYS_readv, SYS_pread64, SYS_preadv, SYS_preadv2};
    static const unsigned for_steps[] = {
        SYS_write, SYS_openat, SYS_mkdirat, SYS_unlinkat, SYS_renameat, SYS_renameat2,
#ifdef SYS_rename
        SYS_rename, SYS_unlink, SYS_mkdir,
#endif
    };
    unsigned caught_calls[32], count = 0;
#define CATCH(calls)                                                     \
    for (unsigned at = 0; at < sizeof calls / sizeof *calls; at++)       \
        caught_calls[count++] = calls[at]
    CATCH(always);
    if (getenv("FAULT_READS")) CATCH(for_reads);
    if (getenv("FAULT_STEPS")) CATCH(for_steps);
    struct sock_filter filter[48];
    unsigned length = 0;
#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (offset))
#define ADD(instruction) filter[length++] = (struct sock_filter)instruction
    ADD(LOAD(offsetof(struct seccomp_data, nr)));
    for (unsigned at = 0; at < count; at++)
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, caught_calls[at], count - at, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    ADD(LOAD(offsetof(struct seccomp_data, args[5]))); /* its low half, on a little-endian machine */
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, 0, 1));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
    struct sock_fprog program = {length, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("PR_SET_NO_NEW_PRIVS");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) fail("PR_SET_SECCOMP");
}
