// A small team of threads that run one function together and meet at barriers.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace headrace {

// Members meet and share out work here. A member that waits spins for some microseconds, then sleeps, so that a
// machine shared with others costs a fair share of speed and no more.
class Team {
 public:
  explicit Team(int members) : members_(members) {}

  int members() const { return members_; }

  // Returns when all members have called it. The work counter starts again at 0.
  void meet() {
    if (members_ == 1) {
      next_.store(0, std::memory_order_relaxed);
      return;
    }
    const unsigned epoch = epoch_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      next_.store(0, std::memory_order_relaxed);
      epoch_.store(epoch + 1, std::memory_order_release);
      epoch_.notify_all();
      return;
    }
    wait(epoch_, epoch);
  }

  // Calls work(from, to) for pieces of [0, count) of `size`, shared with the members that call it too.
  template <class Work>
  void share(int count, int size, Work&& work) {
    if (members_ == 1) {
      if (count) work(0, count);
      return;
    }
    for (int at; (at = next_.fetch_add(size, std::memory_order_relaxed)) < count;)
      work(at, at + size < count ? at + size : count);
  }

  static void wait(const std::atomic<unsigned>& value, unsigned old) {
    for (int spin = 0; spin < 4000; ++spin) {
      if (value.load(std::memory_order_acquire) != old) return;
      relax();
    }
    value.wait(old, std::memory_order_acquire);
  }

 private:
  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  const int members_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> epoch_{0};
  alignas(64) std::atomic<int> next_{0};
};

// Threads that live as long as the pool; the caller of run() is the first member.
class Pool {
 public:
  explicit Pool(int members) : team_(members) {
    for (int member = 1; member < members; ++member) threads_.emplace_back([this, member] { loop(member); });
  }

  ~Pool() {
    job_ = nullptr;
    begin();
    for (auto& thread : threads_) thread.join();
  }

  // job(member, team) on every member; returns when all are done. The job must not throw.
  void run(std::function<void(int, Team&)> job) {
    job_ = std::move(job);
    begin();
    job_(0, team_);
    team_.meet();
  }

  int members() const { return team_.members(); }

 private:
  void begin() {
    started_.fetch_add(1, std::memory_order_release);
    started_.notify_all();
  }

  void loop(int member) {
    for (unsigned seen = 0;; ++seen) {
      Team::wait(started_, seen);
      if (!job_) return;
      job_(member, team_);
      team_.meet();
    }
  }

  Team team_;
  std::function<void(int, Team&)> job_;
  alignas(64) std::atomic<unsigned> started_{0};
  std::vector<std::thread> threads_;
};

}  // namespace headrace
