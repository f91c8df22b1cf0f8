// A small team of threads that work through the same operations and share the pieces of each.
//
// Within a run nobody waits for a member, only for pieces that a member has taken: one that lost its core to another
// process misses some work, and the others do it. Barriers that wait for every member would stand still for whole
// time slices, hundreds of times a step; here that can happen once, at the end of a run.
#pragma once

#include <atomic>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

namespace headrace {

// Work comes in phases with rising numbers. All members name the same phases in the same order; a phase ends when
// all its pieces are done.
class Team {
 public:
  explicit Team(int members) : members_(members) {}

  int members() const { return members_; }

  // Whether a phase at or after `phase` has begun.
  bool reached(uint32_t phase) const { return before_or_at(phase, phase_of(state_.load(std::memory_order_acquire))); }

  // Calls work(from, to) for pieces of [0, count) that nobody else takes; returns when all of them are done.
  template <class Work>
  void share(uint32_t phase, int count, int size, Work&& work) {
    if (count <= 0) return;
    if (size * MOST_PIECES < count) size = count / MOST_PIECES + 1;
    const uint32_t pieces = (count + size - 1) / size;
    open(phase);
    for (uint32_t piece; take(phase, pieces, piece);) {
      const int from = static_cast<int>(piece) * size;
      work(from, from + size < count ? from + size : count);
      if (done_of(state_.fetch_add(ONE_DONE, std::memory_order_acq_rel)) + 1 == pieces) state_.notify_all();
    }
    wait(state_, [&](uint64_t state) { return phase_of(state) != phase || done_of(state) == pieces; });
  }

  // Spins for some microseconds, then sleeps, until ready(value).
  template <class T, class Ready>
  static void wait(const std::atomic<T>& value, Ready&& ready) {
    for (int spin = 0; spin < 4000; ++spin) {
      if (ready(value.load(std::memory_order_acquire))) return;
      relax();
    }
    for (T seen; !ready(seen = value.load(std::memory_order_acquire));) value.wait(seen, std::memory_order_acquire);
  }

 private:
  // A state is the phase (32 bits), how many of its pieces were taken (16), and how many are done (16).
  static constexpr int MOST_PIECES = 0xfff0;
  static constexpr uint64_t ONE_TAKEN = 1 << 16, ONE_DONE = 1;
  static uint32_t phase_of(uint64_t state) { return static_cast<uint32_t>(state >> 32); }
  static uint32_t taken_of(uint64_t state) { return state >> 16 & 0xffff; }
  static uint32_t done_of(uint64_t state) { return state & 0xffff; }
  static bool before_or_at(uint32_t a, uint32_t b) { return static_cast<int32_t>(b - a) >= 0; }  // numbers wrap

  // The caller has seen the phase before this one end.
  void open(uint32_t phase) {
    uint64_t state = state_.load(std::memory_order_acquire);
    while (!before_or_at(phase, phase_of(state)) &&
           !state_.compare_exchange_weak(state, static_cast<uint64_t>(phase) << 32, std::memory_order_acq_rel)) {
    }
  }

  bool take(uint32_t phase, uint32_t pieces, uint32_t& piece) {
    uint64_t state = state_.load(std::memory_order_acquire);
    while (phase_of(state) == phase && taken_of(state) < pieces) {
      piece = taken_of(state);
      if (state_.compare_exchange_weak(state, state + ONE_TAKEN, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  const int members_;
  alignas(64) std::atomic<uint64_t> state_{0};
};

// Threads that live as long as the pool; the caller of run() is the first member.
class Pool {
 public:
  explicit Pool(int members) : team_(members) {
    try {
      for (int member = 1; member < members; ++member) threads_.emplace_back([this, member] { loop(member); });
    } catch (const std::system_error&) {
      // The system gives no more threads: those that are there do the work.
    }
  }

  ~Pool() {
    ending_ = true;
    begin();
    for (auto& thread : threads_) thread.join();
  }

  // job(member, team) on the caller and on whoever comes in time; returns when all of these have left it.
  // The job must not throw.
  void run(std::function<void(int, Team&)> job) {
    job_ = std::move(job);
    open_ = true;
    begin();
    job_(0, team_);
    open_ = false;
    // In one order with open_ for all threads: whoever comes too late finds it closed, or is seen here.
    if (inside_.load() != 0) Team::wait(inside_, [](int inside) { return inside == 0; });
  }

  int members() const { return team_.members(); }

 private:
  void begin() {
    started_.fetch_add(1);
    started_.notify_all();
  }

  void loop(int member) {
    for (unsigned seen = 0;;) {
      Team::wait(started_, [&](unsigned started) { return started != seen; });
      seen = started_.load();
      if (ending_) return;
      inside_.fetch_add(1);
      if (open_) job_(member, team_);
      if (inside_.fetch_sub(1) == 1) inside_.notify_all();
    }
  }

  Team team_;
  std::function<void(int, Team&)> job_;
  std::atomic<bool> open_{false}, ending_{false};
  alignas(64) std::atomic<unsigned> started_{0};
  alignas(64) std::atomic<int> inside_{0};
  std::vector<std::thread> threads_;
};

}  // namespace headrace
