#include "backend/mpi/group.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "backend/mpi/combine.h"
#include "base/counters.h"
#include "base/env.h"
#include "owl/error.h"

namespace owl::mpi {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kTextBytes = 472, kVersionBytes = 32;
constexpr std::size_t kPayload = 4096;          // data of at most so many bytes is in the message
constexpr std::size_t kLargest = 1 << 30;       // bytes of one transfer: MPI counts with an int
constexpr std::size_t kPacked = 64 << 10;       // smaller arrays are copied to one transfer
constexpr std::size_t kBlock = 256 << 10;       // of a large one, what is added at once: it stays in the L2 cache
constexpr std::size_t kSlots = 3;               // blocks that arrive at once
constexpr int kSpins = 50;                      // polls before the first sleep
constexpr long kShortSleepNs = 20'000, kLongSleepNs = 100'000;
enum State : std::uint32_t { kAtOperation, kFailed, kEnded };

std::uint64_t hash_of(const std::string& text) {  // FNV-1a
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

void sleep_ns(long ns) {
  const timespec time{0, ns};
  nanosleep(&time, nullptr);
}

std::string text_of(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", seconds);
  return text;
}

// "rank 1", "ranks 0, 2 and 3".
std::string names_of(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i)
    text += (i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ") + std::to_string(ranks[i]);
  return text;
}

// The pieces' reduction along a binary tree over the ranks: neighbours first, as owl.all_reduce adds devices. `pieces`
// are by rank; that of `own` is not written, and the last step writes `out`.
void reduce_by_tree(std::vector<std::byte*> pieces, std::size_t own, std::byte* out, DType dtype,
                    distributed::Combine how, std::int64_t n) {
  const std::size_t count = pieces.size();
  for (std::size_t apart = 1; apart < count; apart *= 2)
    for (std::size_t i = 0; i + apart < count; i += 2 * apart) {
      const bool last = i == 0 && 2 * apart >= count;
      std::byte *const a = pieces[i], *const b = pieces[i + apart];
      std::byte* const to = last ? out : i == own ? b : a;
      if (i == own) own = count;  // its place has memory of its own now
      combine(dtype, how, to, a, b, n);
      pieces[i] = to;
    }
}

}  // namespace

struct Group::Message {
  std::uint64_t number, hash;
  std::uint32_t state, reserved;
  std::uint64_t payload;
  char text[kTextBytes];
};

struct Group::Received {
  std::vector<std::byte> bytes;
  const Message& message() const { return *reinterpret_cast<const Message*>(bytes.data()); }
  const std::byte* payload() const { return bytes.data() + sizeof(Message); }
};

Group::Group(const Library& library, double warn_after, const std::string& version)
    : library_(library), process_(getpid()), warn_after_(warn_after) {
  int started = 0;
  library_.check(library_.MPI_Initialized(&started), "MPI_Initialized");
  if (!started) {
    int provided = 0;
    library_.check(library_.MPI_Init_thread(nullptr, nullptr, library_.thread_multiple, &provided), "MPI_Init_thread");
    owns_mpi_ = true;
    if (provided < library_.thread_multiple)
      throw DeviceError(library_.version + " (" + library_.path + ") was built without MPI_THREAD_MULTIPLE, which owl needs");
  }
  library_.check(library_.MPI_Comm_rank(library_.world, &rank_), "MPI_Comm_rank");
  library_.check(library_.MPI_Comm_size(library_.world, &size_), "MPI_Comm_size");
  last_.resize(static_cast<std::size_t>(size_));
  if (size_ == 1) return;
  for (Handle* made : {&messages_, &data_}) {
    library_.check(library_.MPI_Comm_dup(library_.world, made), "MPI_Comm_dup");
    library_.check(library_.MPI_Comm_set_errhandler(*made, library_.errors_return), "MPI_Comm_set_errhandler");
  }
  require_same_version(version);
}

// Other versions may record other operations, or send other messages.
void Group::require_same_version(const std::string& own) {
  using Text = std::array<char, kVersionBytes>;
  std::vector<Text> versions(static_cast<std::size_t>(size_));
  Text& sent = versions[static_cast<std::size_t>(rank_)];
  sent.fill(0);
  std::copy_n(own.begin(), std::min(own.size(), sent.size() - 1), sent.begin());
  Requests requests;
  for (int apart = 1; apart < size_; ++apart) {
    const int r = (rank_ + apart) % size_;
    receive(versions[static_cast<std::size_t>(r)].data(), sent.size(), r, 0, requests);
    send(sent.data(), sent.size(), r, 0, requests);
  }
  finish(requests);
  std::map<std::string, std::vector<int>> ranks_of;
  for (int r = 0; r < size_; ++r) ranks_of[versions[static_cast<std::size_t>(r)].data()].push_back(r);
  if (ranks_of.size() == 1) return;
  std::string text = "the ranks have different versions of owl:";
  for (const auto& [version, ranks] : ranks_of)
    text += (text.back() == ':' ? " " : "; ") + names_of(ranks) + (ranks.size() == 1 ? " has " : " have ") + version;
  throw Error(text);
}

void Group::finalize() {
  int ended = 0;
  library_.MPI_Finalized(&ended);
  if (owns_mpi_ && !ended) library_.MPI_Finalize();
}

void Group::abort() {
  library_.MPI_Abort(library_.world, 1);
  std::abort();
}

// ---- transfers

void Group::send(const void* data, std::size_t bytes, int to, int tag, Requests& requests) {
  const auto* at = static_cast<const std::byte*>(data);
  for (std::size_t done = 0; done < bytes; done += kLargest)
    library_.check(library_.MPI_Isend(at + done, static_cast<int>(std::min(kLargest, bytes - done)), library_.byte, to,
                                      tag, data_, &requests.emplace_back(0)), "MPI_Isend");
}

void Group::receive(void* data, std::size_t bytes, int from, int tag, Requests& requests) {
  auto* at = static_cast<std::byte*>(data);
  for (std::size_t done = 0; done < bytes; done += kLargest)
    library_.check(library_.MPI_Irecv(at + done, static_cast<int>(std::min(kLargest, bytes - done)), library_.byte,
                                      from, tag, data_, &requests.emplace_back(0)), "MPI_Irecv");
}

// Until all are done; a request that is done becomes MPI's null request, which is done again. `stalled` is called after
// warn_after_ seconds, and again after twice the time.
template <class Stalled> void Group::finish(Requests& requests, Stalled stalled) {
  const auto begun = Clock::now();
  double warn = warn_after_;
  for (int polls = 0;; ++polls) {
    bool all = true;
    for (Handle& request : requests) {
      int done = 0;
      library_.check(library_.MPI_Test(&request, &done, library_.status_ignore), "MPI_Test");
      all &= done != 0;
    }
    if (all) return;
    if (polls < kSpins) continue;
    if (given_up_) fail("this rank has stopped waiting for the others");
    if (std::chrono::duration<double>(Clock::now() - begun).count() > warn) {
      stalled(warn);
      warn *= 2;
    }
    sleep_ns(polls < 10 * kSpins ? kShortSleepNs : kLongSleepNs);
  }
}

void Group::finish(Requests& requests) {
  finish(requests, [](double) {});
}

// ---- meetings

void Group::fail(const std::string& why) {
  broken_ = why;
  broken_flag_ = true;
  throw Error(why);
}

std::vector<Group::Received> Group::exchange(const Meeting& meeting, std::span<const std::byte> payload) {
  if (!broken_.empty()) throw Error(broken_);
  if (getpid() != process_) throw DeviceError("owl.distributed cannot be used in a forked process");
  const auto number = ++meetings_;
  const auto ranks = static_cast<std::size_t>(size_), own = static_cast<std::size_t>(rank_);
  std::vector<Received> all(ranks);
  Requests requests(ranks, 0);  // of what is received, by rank
  for (std::size_t r = 0; r < ranks; ++r) {
    all[r].bytes.resize(sizeof(Message) + kPayload);
    if (r == own) continue;
    library_.check(library_.MPI_Irecv(all[r].bytes.data(), static_cast<int>(all[r].bytes.size()), library_.byte,
                                      static_cast<int>(r), 0, messages_, &requests[r]), "MPI_Irecv");
  }
  Message message{number, hash_of(meeting.identity), kAtOperation, 0, payload.size(), {}};
  message.state = !meeting.failure.empty() ? kFailed : meeting.ends ? kEnded : kAtOperation;
  const std::string& text = meeting.failure.empty() ? meeting.text : meeting.failure;
  std::memcpy(message.text, text.data(), std::min(text.size(), kTextBytes - 1));
  std::memcpy(all[own].bytes.data(), &message, sizeof message);
  std::copy(payload.begin(), payload.end(), all[own].bytes.begin() + sizeof message);
  const int bytes = static_cast<int>(sizeof message + payload.size());
  Requests sent;
  for (std::size_t r = 0; r < ranks; ++r)
    if (r != own)
      library_.check(library_.MPI_Isend(all[own].bytes.data(), bytes, library_.byte, static_cast<int>(r), 0, messages_,
                                        &sent.emplace_back(0)), "MPI_Isend");
  requests.erase(requests.begin() + rank_);
  finish(requests, [&](double seconds) {
    std::vector<int> missing;
    for (int r = 0; r < size_; ++r)
      if (r != rank_ && all[static_cast<std::size_t>(r)].message().number != number) missing.push_back(r);
    // One rank reports: the first of those that are here.
    for (int r = 0; r < rank_; ++r)
      if (std::ranges::find(missing, r) == missing.end()) return;
    if (missing.empty()) return;
    std::string lasts;
    for (const int r : missing)
      if (const auto& last = last_[static_cast<std::size_t>(r)]; !last.empty())
        lasts += "; rank " + std::to_string(r) + " was last at no. " + std::to_string(number - 1) + ", " + last;
    log_line("rank " + std::to_string(rank_) + " has waited " + text_of(seconds) + " s in no. " +
             std::to_string(number) + ", " + meeting.text + ", for " + names_of(missing) + lasts);
  });
  finish(sent);
  return all;
}

// Throws the same error on every rank, because all have the same messages.
void Group::compare(const std::vector<Received>& all) {
  std::map<std::uint64_t, std::vector<int>> by_hash;
  bool ended = false;
  for (int r = 0; r < size_; ++r) {
    const Message& m = all[static_cast<std::size_t>(r)].message();
    if (m.state == kFailed) fail("rank " + std::to_string(r) + " failed: " + m.text);
    by_hash[m.hash].push_back(r);
    ended |= m.state == kEnded;
    last_[static_cast<std::size_t>(r)] = m.text;
  }
  if (by_hash.size() == 1) return;
  std::vector<std::vector<int>> groups;
  for (auto& [hash, ranks] : by_hash) groups.push_back(ranks);
  std::ranges::sort(groups);
  std::string text = "the ranks do not do the same, at no. " + std::to_string(meetings_) + ": ";
  for (const auto& ranks : groups) {
    const Message& m = all[static_cast<std::size_t>(ranks[0])].message();
    text += (&ranks == &groups[0] ? "" : "; ") + names_of(ranks) + (ranks.size() == 1 ? " is" : " are") + " at " + m.text;
  }
  fail(text + ". Every rank must record the same operations, of the same shapes and types, in the same order" +
       (ended ? "; an operation inside `if rank() == ...` is one that the others lack" : ""));
}

void Group::meet(const Meeting& meeting) { compare(exchange(meeting, {})); }

// ---- operations

namespace {

std::size_t bytes_of(std::span<const Part> parts) {
  std::size_t bytes = 0;
  for (const Part& part : parts) bytes += part.bytes();
  return bytes;
}

std::vector<std::byte> packed(std::span<const Part> parts) {
  std::vector<std::byte> data;
  for (const Part& part : parts) data.insert(data.end(), part.in, part.in + part.bytes());
  count(counters.copies, static_cast<std::int64_t>(parts.size()));
  return data;
}

}  // namespace

void Group::all_reduce(const Meeting& meeting, std::span<const Part> parts, distributed::Combine how) {
  if (bytes_of(parts) <= kPayload) return reduce_small(meeting, parts, how);
  meet(meeting);
  reduce_large(parts, how);
}

// Every rank has everything, in the messages, and adds it.
void Group::reduce_small(const Meeting& meeting, std::span<const Part> parts, distributed::Combine how) {
  const auto own = packed(parts);
  auto all = exchange(meeting, own);
  compare(all);
  std::size_t at = 0;
  for (const Part& part : parts) {
    std::vector<std::byte*> pieces;
    for (auto& each : all) pieces.push_back(each.bytes.data() + sizeof(Message) + at);
    reduce_by_tree(std::move(pieces), static_cast<std::size_t>(size_), part.out, part.dtype, how, part.count);
    at += part.bytes();
  }
}

// What a rank adds and sends to the others: a range of one array, cut in blocks. `data` is where the array is sent from,
// and its sum received.
struct Group::Share {
  Part data;
  int tag;
  std::int64_t begin, end;  // elements

  std::int64_t blocks() const { return (end - begin + step() - 1) / step(); }
  std::int64_t step() const { return static_cast<std::int64_t>(kBlock / itemsize(data.dtype)); }
  std::size_t offset(std::int64_t block) const {
    return static_cast<std::size_t>(begin + block * step()) * itemsize(data.dtype);
  }
  std::int64_t count(std::int64_t block) const { return std::min(step(), end - begin - block * step()); }
  std::size_t bytes(std::int64_t block) const { return static_cast<std::size_t>(count(block)) * itemsize(data.dtype); }
};

// Large arrays are sent from where they are, and received where the result will be. Small ones are copied to one array
// for each type, because a message costs more.
void Group::reduce_large(std::span<const Part> parts, distributed::Combine how) {
  std::vector<Part> arrays;
  std::map<DType, std::vector<Part>> small;
  for (const Part& part : parts)
    if (part.bytes() >= kPacked) arrays.push_back(part);
    else if (part.count > 0) small[part.dtype].push_back(part);
  const std::size_t large = arrays.size();
  std::vector<std::vector<std::byte>> buffers;
  buffers.reserve(2 * small.size());
  for (const auto& [dtype, group] : small) {
    const auto& in = buffers.emplace_back(packed(group));
    auto& out = buffers.emplace_back(in.size());
    arrays.push_back({in.data(), out.data(), static_cast<std::int64_t>(in.size() / itemsize(dtype)), dtype});
  }
  reduce_in_place(arrays, how);
  std::size_t at = large;
  for (const auto& [dtype, group] : small) {
    const std::byte* from = arrays[at++].out;
    for (const Part& part : group) {
      std::memcpy(part.out, from, part.bytes());
      from += part.bytes();
    }
  }
}

// Each rank adds its share of every array, and, if it `gathers`, sends the sum to the others: all-to-all and all-gather,
// block by block, so that one block is added, while it is in the cache, beside the transfer of others. Else `out` is of its
// share alone.
void Group::reduce_in_place(std::span<const Part> arrays, distributed::Combine how, bool gathers) {
  const auto share = [&](std::size_t i, int r) {
    const Part& data = arrays[i];
    return Share{data, static_cast<int>(2 * i), r * data.count / size_, (r + 1) * data.count / size_};
  };
  Requests transfers;  // all but the blocks that this rank adds
  std::vector<std::pair<Share, std::int64_t>> own;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    for (int apart = 1; apart < size_; ++apart) {
      const int r = (rank_ + apart) % size_;
      const Share s = share(i, r);
      for (std::int64_t b = 0; b < s.blocks(); ++b) {
        if (gathers) receive(s.data.out + s.offset(b), s.bytes(b), r, s.tag + 1, transfers);
        send(s.data.in + s.offset(b), s.bytes(b), r, s.tag, transfers);
      }
    }
    const Share s = share(i, rank_);
    for (std::int64_t b = 0; b < s.blocks(); ++b) own.emplace_back(s, b);
  }
  const auto others = static_cast<std::size_t>(size_ - 1);
  arrived_.resize(std::max(arrived_.size(), kSlots * others * kBlock));
  std::array<Requests, kSlots> waiting;
  const auto place = [&](std::size_t n, int r) {
    return arrived_.data() + ((n % kSlots) * others + static_cast<std::size_t>(r < rank_ ? r : r - 1)) * kBlock;
  };
  const auto begin = [&](std::size_t n) {
    if (n >= own.size()) return;
    const auto& [s, b] = own[n];
    waiting[n % kSlots].clear();
    for (int r = 0; r < size_; ++r)
      if (r != rank_) receive(place(n, r), s.bytes(b), r, s.tag, waiting[n % kSlots]);
  };
  for (std::size_t n = 0; n < kSlots; ++n) begin(n);
  for (std::size_t n = 0; n < own.size(); ++n) {
    const auto& [s, b] = own[n];
    finish(waiting[n % kSlots]);
    std::vector<std::byte*> pieces;
    for (int r = 0; r < size_; ++r)
      pieces.push_back(r == rank_ ? const_cast<std::byte*>(s.data.in) + s.offset(b) : place(n, r));
    std::byte* const sum = s.data.out + (s.offset(b) - (gathers ? 0 : s.offset(0)));
    reduce_by_tree(std::move(pieces), static_cast<std::size_t>(rank_), sum, s.data.dtype, how, s.count(b));
    for (int apart = 1; gathers && apart < size_; ++apart)
      send(sum, s.bytes(b), (rank_ + apart) % size_, s.tag + 1, transfers);
    begin(n + kSlots);
  }
  finish(transfers);
}

// Of small arrays every rank has the whole sums.
void Group::reduce_scatter(const Meeting& meeting, std::span<const Part> parts) {
  std::vector<Part> large, wholes;
  std::vector<std::vector<std::byte>> sums;
  for (const Part& part : parts) {
    if (part.bytes() >= kPacked) large.push_back(part);
    else wholes.push_back({part.in, sums.emplace_back(part.bytes()).data(), part.count, part.dtype});
  }
  if (large.empty()) all_reduce(meeting, wholes, distributed::Combine::kSum);
  else {
    meet(meeting);
    reduce_in_place(large, distributed::Combine::kSum, false);
    reduce_large(wholes, distributed::Combine::kSum);
  }
  auto whole = sums.begin();
  for (const Part& part : parts) {
    const std::size_t own = part.bytes() / static_cast<std::size_t>(size_);
    if (part.bytes() < kPacked && own > 0) std::memcpy(part.out, whole->data() + static_cast<std::size_t>(rank_) * own, own);
    if (part.bytes() < kPacked) ++whole;
  }
}

void Group::all_gather(const Meeting& meeting, std::span<const Part> parts) {
  meet(meeting);
  Requests requests;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto bytes = parts[i].bytes();
    for (int r = 0; r < size_; ++r) {
      std::byte* const to = parts[i].out + static_cast<std::size_t>(r) * bytes;
      if (r == rank_) std::copy_n(parts[i].in, bytes, to);
      else receive(to, bytes, r, static_cast<int>(i), requests);
    }
  }
  for (std::size_t i = 0; i < parts.size(); ++i)
    for (int apart = 1; apart < size_; ++apart)
      send(parts[i].in, parts[i].bytes(), (rank_ + apart) % size_, static_cast<int>(i), requests);
  finish(requests);
}

void Group::broadcast(const Meeting& meeting, std::span<const Part> parts, int root) {
  meet(meeting);
  for (const Part& part : parts) {
    if (rank_ == root && part.bytes() > 0) std::memcpy(part.out, part.in, part.bytes());
    for (std::size_t done = 0; done < part.bytes(); done += kLargest) {
      Requests request{0};
      library_.check(library_.MPI_Ibcast(part.out + done, static_cast<int>(std::min(kLargest, part.bytes() - done)),
                                         library_.byte, root, data_, request.data()), "MPI_Ibcast");
      finish(request);
    }
  }
}

}  // namespace owl::mpi
