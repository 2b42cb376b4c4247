// A database opens, writes, flushes, compacts, reads, deletes, and is there after it was closed:
// rocksdb-build.sh runs it before a library may be used.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "rocksdb/c.h"

static void check(bool ok, const char* what) {
  if (!ok) {
    std::fprintf(stderr, "rocksdb: smoke test: %s\n", what);
    std::exit(1);
  }
}

static std::string get(rocksdb_t* db, const rocksdb_readoptions_t* options, const std::string& key) {
  char* error = nullptr;
  size_t length = 0;
  char* value = rocksdb_get(db, options, key.data(), key.size(), &length, &error);
  check(error == nullptr, "get");
  std::string result = value == nullptr ? "" : std::string(value, length);
  std::free(value);
  return result;
}

int main(int, char** arguments) {
  char* error = nullptr;
  rocksdb_options_t* options = rocksdb_options_create();
  rocksdb_options_set_create_if_missing(options, 1);
  rocksdb_options_set_compression(options, rocksdb_no_compression);
  rocksdb_block_based_table_options_t* table = rocksdb_block_based_options_create();
  rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_ribbon(10));
  rocksdb_options_set_block_based_table_factory(options, table);
  rocksdb_writeoptions_t* write = rocksdb_writeoptions_create();
  rocksdb_readoptions_t* read = rocksdb_readoptions_create();

  rocksdb_t* db = rocksdb_open(options, arguments[1], &error);
  check(error == nullptr, "open");
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 10000; ++i) {
      std::string key = "key" + std::to_string(i);
      std::string value = std::to_string(i + round);
      rocksdb_put(db, write, key.data(), key.size(), value.data(), value.size(), &error);
      check(error == nullptr, "put");
    }
    rocksdb_flushoptions_t* flush = rocksdb_flushoptions_create();
    rocksdb_flush(db, flush, &error);
    check(error == nullptr, "flush");
    rocksdb_flushoptions_destroy(flush);
  }
  rocksdb_delete(db, write, "key7", 4, &error);
  check(error == nullptr, "delete");
  rocksdb_compact_range(db, nullptr, 0, nullptr, 0);
  rocksdb_close(db);

  db = rocksdb_open(options, arguments[1], &error);
  check(error == nullptr, "open again");
  check(get(db, read, "key41") == "42", "a value is not the one that was written");
  check(get(db, read, "key7").empty(), "a deleted value is there");
  rocksdb_iterator_t* iterator = rocksdb_create_iterator(db, read);
  int count = 0;
  for (rocksdb_iter_seek_to_first(iterator); rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
    ++count;
  }
  check(count == 9999, "the iterator does not see all");
  rocksdb_iter_destroy(iterator);
  rocksdb_close(db);
  return 0;
}
