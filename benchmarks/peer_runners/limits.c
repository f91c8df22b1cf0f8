// What this machine can do at most: sequential reads from memory, and multiply-adds in registers, in the given number of threads.
// Prints "READ <MiB> <GB/s>" for working sets of several sizes, and "OPS <kind> <operations per second>".
#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { ROUNDS = 5, MOST_THREADS = 256 };

struct share {
    const char *start;
    size_t bytes;
    long repeats;
    double (*work)(struct share *);
    double result;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

__attribute__((target("avx2"))) static double read_all(struct share *s) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (long r = 0; r < s->repeats; r++)
        for (const char *p = s->start; p < s->start + s->bytes; p += 128) {
            a = _mm256_xor_si256(a, _mm256_load_si256((const __m256i *)p));
            b = _mm256_xor_si256(b, _mm256_load_si256((const __m256i *)(p + 32)));
            c = _mm256_xor_si256(c, _mm256_load_si256((const __m256i *)(p + 64)));
            d = _mm256_xor_si256(d, _mm256_load_si256((const __m256i *)(p + 96)));
        }
    a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    return (double)_mm256_extract_epi64(a, 0);
}

// Twelve independent accumulators hide the latency of any of these instructions.
#define LANES(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

__attribute__((target("avx512f,avx512vnni"))) static double vnni(struct share *s) {
    __m512i x = _mm512_set1_epi8(1), zero = _mm512_setzero_si512();
#define X(i) __m512i a##i = zero;
    LANES(X)
#undef X
    for (long r = 0; r < s->repeats; r++) {
#define X(i) a##i = _mm512_dpbusd_epi32(a##i, x, x); __asm__ volatile("" : "+v"(a##i));
        LANES(X)
#undef X
    }
    return _mm512_reduce_add_epi32(a0);
}

__attribute__((target("avx2,fma"))) static double fma32(struct share *s) {
    __m256 x = _mm256_set1_ps(0.5f), zero = _mm256_setzero_ps();
#define X(i) __m256 a##i = zero;
    LANES(X)
#undef X
    for (long r = 0; r < s->repeats; r++) {
#define X(i) a##i = _mm256_fmadd_ps(a##i, x, x); __asm__ volatile("" : "+x"(a##i));
        LANES(X)
#undef X
    }
    return _mm256_cvtss_f32(a0);
}

#ifdef __AMX_INT8__
#include <sys/syscall.h>
#include <unistd.h>
static double amx(struct share *s) {
    struct { uint8_t palette, row, pad[14]; uint16_t bytes[16]; uint8_t rows[16]; } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile("" ::: "memory");
    _tile_loadconfig(&config);
    for (long r = 0; r < s->repeats; r++) {
        _tile_dpbssd(0, 4, 6); _tile_dpbssd(1, 5, 6); _tile_dpbssd(2, 4, 7); _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
    return 0;
}
#endif

static void *run(void *p) {
    struct share *s = p;
    s->result = s->work(s);
    return NULL;
}

static double seconds(struct share *shares, int threads) {
    pthread_t ids[MOST_THREADS];
    double best = 1e30;
    for (int round = 0; round < ROUNDS; round++) {
        double began = now();
        for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, run, &shares[i]);
        for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
        double took = now() - began;
        if (took < best) best = took;
    }
    return best;
}

static void reads(int threads, size_t mib) {
    size_t bytes = mib << 20, part = bytes / threads & ~(size_t)127;
    char *memory = aligned_alloc(1 << 21, bytes);
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 1, bytes);
    struct share shares[MOST_THREADS];
    long repeats = 1 + 1024 / mib;
    for (int i = 0; i < threads; i++) shares[i] = (struct share){memory + i * part, part, repeats, read_all, 0};
    printf("READ %zu %.2f\n", mib, part * threads * repeats / seconds(shares, threads) * 1e-9);
    free(memory);
}

static void operations(int threads, const char *kind, double (*work)(struct share *), double each) {
    struct share shares[MOST_THREADS];
    long repeats = 20000000;
    for (int i = 0; i < threads; i++) shares[i] = (struct share){NULL, 0, repeats, work, 0};
    printf("OPS %s %.4g\n", kind, each * repeats * threads / seconds(shares, threads));
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > MOST_THREADS) return 1;
    for (size_t mib = 64; mib <= 1024; mib *= 2) reads(threads, mib);
    operations(threads, "fp32", fma32, 12 * 8 * 2);
    if (__builtin_cpu_supports("avx512vnni")) operations(threads, "int8", vnni, 12 * 64 * 2);
#ifdef __AMX_INT8__
    if (syscall(SYS_arch_prctl, 0x1023, 18) == 0) operations(threads, "int8-amx", amx, 4 * 16 * 16 * 64 * 2);
#endif
    return 0;
}
