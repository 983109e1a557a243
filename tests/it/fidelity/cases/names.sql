-- Names: of tables, columns and indexes.

--- case names_with_quotes_of_every_kind
--- schema
CREATE TABLE "it's ""quoted"" `so` [and] so"("k'ey" TEXT PRIMARY KEY, "a""b" UNIQUE, `c``d`, [e f], "g]h");
CREATE UNIQUE INDEX "an ""index"", ON (it)" ON "it's ""quoted"" `so` [and] so"(lower(`c``d`), [e f]) WHERE "g]h" > '--- )';
--- write 1
INSERT INTO "it's ""quoted"" `so` [and] so" VALUES('a', 1, 'C', 1, 'x'), ('b', 2, 'D', 2, 'y');
--- write 2
UPDATE "it's ""quoted"" `so` [and] so" SET "a""b" = 3, "g]h" = 'z' WHERE "k'ey" = 'a'; REPLACE INTO "it's ""quoted"" `so` [and] so" VALUES('c', 4, 'd', 2, 'z');
--- holds SELECT * FROM "it's ""quoted"" `so` [and] so" ORDER BY "k'ey" => 'a'|3|'C'|1|'z';'c'|4|'d'|2|'z'

--- case names_with_spaces_newlines_and_percent
--- schema
CREATE TABLE "  a table
of two	lines  "("  key
" INTEGER PRIMARY KEY, "100 %s" UNIQUE, "; DROP TABLE x; --" , "?1 :a @b $c", "\n", " ");
--- write 1
INSERT INTO "  a table
of two	lines  " VALUES(1, 2, 3, 4, 5, 6), (2, 3, 4, 5, 6, 7);
--- write 2
UPDATE "  a table
of two	lines  " SET "100 %s" = 9, " " = 0 WHERE "  key
" = 1; REPLACE INTO "  a table
of two	lines  "("100 %s") VALUES(3);

--- case keywords_as_names
--- schema
CREATE TABLE "select"("from" INTEGER PRIMARY KEY, "where" UNIQUE, "order" , "group", "table", "index", "values", "null", "default", "check", "primary", "key", "unique", "create", "trigger");
CREATE TABLE "table"("insert" TEXT, "update", "delete", PRIMARY KEY("insert")) WITHOUT ROWID;
CREATE TABLE "index"("values" PRIMARY KEY, "set" UNIQUE ON CONFLICT REPLACE);
--- write 1
INSERT INTO "select"("where", "order") VALUES(1, 2), (2, 3); INSERT INTO "table" VALUES('a', 1, 2), ('b', 1, 2); INSERT INTO "index" VALUES(1, 1), (2, 2);
--- write 2
UPDATE "select" SET "group" = 5, "null" = 6 WHERE "from" = 1; REPLACE INTO "select"("where") VALUES(2); UPDATE "table" SET "insert" = 'c' WHERE "insert" = 'a'; INSERT INTO "index" VALUES(3, 2);
--- holds SELECT * FROM "index" ORDER BY "values" => 1|1;3|2

--- case names_of_any_unicode
--- schema
CREATE TABLE "таблица 表 🦀"("ключ" TEXT PRIMARY KEY, "É", "é", "ß" UNIQUE, "🦀", "İ", "ı", "e");
CREATE UNIQUE INDEX "указатель" ON "таблица 表 🦀"("É" || "é");
--- write 1
INSERT INTO "таблица 表 🦀" VALUES('a', 'É', 'é', 1, 2, 3, 4, 5), ('b', 'e', 'E', 2, 2, 3, 4, 5);
--- write 2
UPDATE "таблица 表 🦀" SET "É" = 'é' WHERE "ключ" = 'a'; UPDATE "таблица 表 🦀" SET E = 9 WHERE "ключ" = 'b'; REPLACE INTO "таблица 表 🦀"("ключ", "ß", "🦀") VALUES('c', 2, 'crab');
--- holds SELECT "É", "é", "🦀" FROM "таблица 表 🦀" ORDER BY "ключ" => 'é'|'é'|2;NULL|NULL|'crab'

--- case names_that_differ_in_non_ascii_case
--- schema
CREATE TABLE "É"(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE "é"(id INTEGER PRIMARY KEY, v UNIQUE);
--- write 1
INSERT INTO "É" VALUES(1, 'large'); INSERT INTO "é" VALUES(1, 'small'), (2, 'x');
--- write 2
UPDATE "é" SET v = 'smaller' WHERE id = 1; REPLACE INTO "É" VALUES(2, 'large');
--- holds SELECT (SELECT group_concat(v) FROM "É"), (SELECT group_concat(v) FROM "é") => 'large'|'smaller,x'

--- case names_in_another_case
--- schema
CREATE TABLE MixedCase(Id INTEGER PRIMARY KEY, CamelCase UNIQUE, UPPER);
--- write 1
INSERT INTO mixedcase(ID, camelcase, upper) VALUES(1, 2, 3), (2, 3, 4);
--- write 2
UPDATE MIXEDCASE SET CAMELCASE = 5 WHERE iD = 1; UPDATE MixedCASE SET Upper = 9 WHERE Id = 2;
--- holds SELECT * FROM mixedCase => 1|5|3;2|3|9

--- case names_like_ours
--- schema
CREATE TABLE __harmonylite_x(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE harmonylite__x(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE log(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE log_change_log(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE log_change_log_change_log(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE log_insert(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE log_update(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE log_insert_insert(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE log_displaced_rows(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE log_former_values(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE global(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE _global(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE "_global~"(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE _global_change_log(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE _change_log_global(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE node(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE tables(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE conflicts(id INTEGER PRIMARY KEY, v UNIQUE);
--- write 1
INSERT INTO __harmonylite_x VALUES(1, 1), (2, 2); INSERT INTO harmonylite__x SELECT * FROM __harmonylite_x; INSERT INTO log SELECT * FROM __harmonylite_x; INSERT INTO log_change_log SELECT * FROM __harmonylite_x;
INSERT INTO log_change_log_change_log SELECT * FROM __harmonylite_x; INSERT INTO log_insert SELECT * FROM __harmonylite_x; INSERT INTO log_update SELECT * FROM __harmonylite_x; INSERT INTO log_insert_insert SELECT * FROM __harmonylite_x;
INSERT INTO log_displaced_rows SELECT * FROM __harmonylite_x; INSERT INTO log_former_values SELECT * FROM __harmonylite_x; INSERT INTO global SELECT * FROM __harmonylite_x; INSERT INTO _global SELECT * FROM __harmonylite_x;
INSERT INTO "_global~" SELECT * FROM __harmonylite_x; INSERT INTO _global_change_log SELECT * FROM __harmonylite_x; INSERT INTO _change_log_global SELECT * FROM __harmonylite_x;
INSERT INTO node SELECT * FROM __harmonylite_x; INSERT INTO tables SELECT * FROM __harmonylite_x; INSERT INTO conflicts SELECT * FROM __harmonylite_x;
--- write 2
REPLACE INTO log VALUES(3, 1); UPDATE log_change_log SET v = 3 WHERE id = 1; DELETE FROM log_change_log_change_log WHERE id = 1; UPDATE log_insert SET id = 4 WHERE id = 1; REPLACE INTO log_displaced_rows VALUES(3, 2);
UPDATE OR REPLACE _global SET v = 2 WHERE id = 1; UPDATE "_global~" SET v = 5 WHERE id = 1; REPLACE INTO _global_change_log VALUES(7, 1); DELETE FROM _change_log_global; UPDATE global SET v = 7 WHERE id = 2; DELETE FROM node WHERE id = 2; UPDATE tables SET v = NULL;
--- holds SELECT * FROM _global => 1|2

--- case columns_named_as_ours
--- schema
CREATE TABLE our_columns(id TEXT, type, mask UNIQUE, generation, stamp, val_id, val_val_id, NEW UNIQUE, OLD, excluded, "rowid", "__harmonylite__x", PRIMARY KEY(id, type, val_id, stamp)) WITHOUT ROWID;
CREATE TABLE our_columns_2(NEW INTEGER PRIMARY KEY, OLD UNIQUE, excluded, type, id);
--- write 1
INSERT INTO our_columns VALUES('a', 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), ('b', 1, 3, 3, 4, 5, 6, 8, 8, 9, 10, 11); INSERT INTO our_columns_2 VALUES(1, 1, 1, 1, 1), (2, 2, 2, 2, 2);
--- write 2
UPDATE our_columns SET generation = 0, excluded = 1 WHERE id = 'a'; UPDATE our_columns SET stamp = 'moved', mask = 9 WHERE id = 'b'; REPLACE INTO our_columns VALUES('c', 1, 2, 3, 4, 5, 6, 8, 9, 9, 10, 11);
REPLACE INTO our_columns_2 VALUES(3, 1, 3, 3, 3); UPDATE our_columns_2 SET NEW = 9, OLD = 10 WHERE OLD = 2;
--- holds SELECT * FROM our_columns_2 => 3|1|3|3|3;9|10|2|2|2

--- case table_named_excluded
--- schema
CREATE TABLE excluded(id INTEGER PRIMARY KEY, v, w);
--- write 1
INSERT INTO excluded VALUES(1, 'a', 1), (2, 'b', 2);
--- write 2
REPLACE INTO excluded VALUES(1, 'replaced', 3); UPDATE excluded SET v = 'x' WHERE id = 2;
--- holds SELECT * FROM excluded => 1|'replaced'|3;2|'x'|2

--- case tables_named_new_and_old
--- schema
CREATE TABLE new(id INTEGER PRIMARY KEY, u UNIQUE, v);
CREATE TABLE old(id TEXT PRIMARY KEY, u UNIQUE, v) WITHOUT ROWID;
CREATE UNIQUE INDEX new_u ON new(u + v);
--- write 1
INSERT INTO new VALUES(1, 1, 1), (2, 2, 2), (3, 3, 3); INSERT INTO old SELECT * FROM new;
--- write 2
REPLACE INTO new VALUES(4, 1, 5); UPDATE OR REPLACE new SET u = 3 WHERE id = 2; REPLACE INTO old VALUES(4, 1, 5); UPDATE OR REPLACE old SET u = 3 WHERE id = 2;
--- write 1
UPDATE new SET v = 7 WHERE id = 4; UPDATE old SET v = 7 WHERE id = 4;
--- holds SELECT * FROM new => 2|3|2;4|1|7
--- holds SELECT * FROM old => '2'|3|2;'4'|1|7

--- case tables_named_as_their_columns
--- schema
CREATE TABLE self(self TEXT PRIMARY KEY, id UNIQUE);
CREATE TABLE main(main INTEGER PRIMARY KEY, temp UNIQUE);
CREATE TABLE temp(temp INTEGER PRIMARY KEY, main UNIQUE);
--- write 1
INSERT INTO self VALUES('a', 1), ('b', 2); INSERT INTO main.main VALUES(1, 1), (2, 2); INSERT INTO main.temp VALUES(1, 1), (2, 2);
--- write 2
UPDATE self SET self = 'c' WHERE self.self = 'a'; REPLACE INTO main.main VALUES(3, 2); UPDATE OR REPLACE main.temp SET main = 2 WHERE temp = 1;
--- holds SELECT * FROM main.temp => 1|2
