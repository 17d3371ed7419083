/* Loaded before a command (LD_PRELOAD): its reads fail or are slow, or its clock jumps.

   CHAOS_FOLDERS  folders whose files are meant, separated by colons
   CHAOS_FAULT    eio:N    the N-th reading, opening or looking up of a file fails with EIO
                  dead:N   so do all from the N-th on
                  slow:N   each takes N microseconds longer
                  clock:N:S  from the N-th look at the clock on it is S seconds ahead
   CHAOS_COUNT    file that gets the number of readings and of looks at the end of the command */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NUMBERS 65536
static volatile char meant[NUMBERS]; /* descriptors of files in the folders */
static volatile long reads, looks;

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int inside(const char *path) {
  const char *folders = getenv("CHAOS_FOLDERS");
  char whole[8192];
  if (!folders || !path) return 0;
  if (path[0] != '/') {
    if (!getcwd(whole, 4096)) return 0;
    size_t length = strlen(whole);
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    path = whole;
  }
  while (*folders) {
    size_t length = strcspn(folders, ":");
    if (length && !strncmp(path, folders, length)) return 1;
    folders += length + (folders[length] == ':');
  }
  return 0;
}

/* Counts a reading; nonzero where it is to fail. */
static int fails(void) {
  const char *fault = getenv("CHAOS_FAULT");
  long number = __sync_add_and_fetch(&reads, 1);
  if (!fault) return 0;
  if (!strncmp(fault, "slow:", 5)) {
    struct timespec pause = {0, atol(fault + 5) * 1000};
    nanosleep(&pause, NULL);
  }
  int fail = (!strncmp(fault, "eio:", 4) && number == atol(fault + 4)) ||
             (!strncmp(fault, "dead:", 5) && number >= atol(fault + 5));
  if (fail) errno = EIO;
  return fail;
}

static int opened(int descriptor, const char *path) {
  if (descriptor >= 0 && descriptor < NUMBERS) meant[descriptor] = inside(path);
  return descriptor;
}

static int to_fail(const char *path) { return inside(path) && fails(); }
static int reading(int number) {
  return number >= 0 && number < NUMBERS && meant[number] && fails();
}

#define MODE \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { \
    va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); \
  }
#define READS (!(flags & (O_WRONLY | O_CREAT)))

int open(const char *path, int flags, ...) {
  REAL(open); MODE
  return READS && to_fail(path) ? -1 : opened(real(path, flags, mode), path);
}
int open64(const char *path, int flags, ...) {
  REAL(open64); MODE
  return READS && to_fail(path) ? -1 : opened(real(path, flags, mode), path);
}
int openat(int at, const char *path, int flags, ...) {
  REAL(openat); MODE
  return READS && to_fail(path) ? -1 : opened(real(at, path, flags, mode), path);
}
int openat64(int at, const char *path, int flags, ...) {
  REAL(openat64); MODE
  return READS && to_fail(path) ? -1 : opened(real(at, path, flags, mode), path);
}
FILE *fopen(const char *path, const char *mode) {
  REAL(fopen);
  return mode[0] == 'r' && to_fail(path) ? NULL : real(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
  REAL(fopen64);
  return mode[0] == 'r' && to_fail(path) ? NULL : real(path, mode);
}
DIR *opendir(const char *path) {
  REAL(opendir);
  return to_fail(path) ? NULL : real(path);
}
int stat(const char *path, struct stat *found) {
  REAL(stat);
  return to_fail(path) ? -1 : real(path, found);
}
int stat64(const char *path, struct stat64 *found) {
  REAL(stat64);
  return to_fail(path) ? -1 : real(path, found);
}
int fstatat(int at, const char *path, struct stat *found, int flags) {
  REAL(fstatat);
  return to_fail(path) ? -1 : real(at, path, found, flags);
}
int close(int number) {
  REAL(close);
  if (number >= 0 && number < NUMBERS) meant[number] = 0;
  return real(number);
}
ssize_t read(int number, void *content, size_t size) {
  REAL(read);
  return reading(number) ? -1 : real(number, content, size);
}
ssize_t pread(int number, void *content, size_t size, off_t place) {
  REAL(pread);
  return reading(number) ? -1 : real(number, content, size, place);
}
ssize_t pread64(int number, void *content, size_t size, off64_t place) {
  REAL(pread64);
  return reading(number) ? -1 : real(number, content, size, place);
}
ssize_t readv(int number, const struct iovec *parts, int count) {
  REAL(readv);
  return reading(number) ? -1 : real(number, parts, count);
}

static long ahead(void) {
  const char *fault = getenv("CHAOS_FAULT"), *seconds;
  long number = __sync_add_and_fetch(&looks, 1);
  if (!fault || strncmp(fault, "clock:", 6) || number < atol(fault + 6)) return 0;
  seconds = strchr(fault + 6, ':');
  return seconds ? atol(seconds + 1) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *found) {
  REAL(clock_gettime);
  int status = real(clock, found);
  if (!status && clock == CLOCK_REALTIME) found->tv_sec += ahead();
  return status;
}
time_t time(time_t *place) {
  struct timespec now = {0, 0};
  clock_gettime(CLOCK_REALTIME, &now);
  if (place) *place = now.tv_sec;
  return now.tv_sec;
}
int gettimeofday(struct timeval *restrict found, void *restrict zone) {
  struct timespec now = {0, 0};
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  found->tv_sec = now.tv_sec;
  found->tv_usec = now.tv_nsec / 1000;
  return 0;
}

/* The counts are of a command, which is a fork. */
static void begin(void) { reads = looks = 0; }
__attribute__((constructor)) static void arrange(void) { pthread_atfork(NULL, NULL, begin); }

__attribute__((destructor)) static void tell(void) {
  const char *path = getenv("CHAOS_COUNT");
  if (!path) return;
  FILE *file = fopen(path, "w");
  if (!file) return;
  fprintf(file, "%ld %ld\n", reads, looks);
  fclose(file);
}
