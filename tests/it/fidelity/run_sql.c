/* An app with whatever SQLite it is linked to: runs the SQL on its standard input in the database that its argument names, and prints the rows,
   values by `quote()`, separated by `|`. */

#include <stdio.h>
#include <stdlib.h>
#include "sqlite3.h"

static int print_row(void *unused, int count, char **values, char **names) {
  (void)unused;
  (void)names;
  for (int i = 0; i < count; i++) printf("%s%s", i ? "|" : "", values[i] ? values[i] : "NULL");
  printf("\n");
  return 0;
}

int main(int argc, char **argv) {
  size_t size = 0, room = 1 << 24;
  char *sql = malloc(room), *message = 0;
  sqlite3 *db;
  if (argc != 2 || !sql) return 2;
  size = fread(sql, 1, room - 1, stdin);
  sql[size] = 0;
  if (sqlite3_open(argv[1], &db) != SQLITE_OK) return 2;
  sqlite3_busy_timeout(db, 60000);
  if (sqlite3_exec(db, sql, print_row, 0, &message) != SQLITE_OK) {
    fprintf(stderr, "%s\n", message);
    return 1;
  }
  return sqlite3_close(db) == SQLITE_OK ? 0 : 2;
}
