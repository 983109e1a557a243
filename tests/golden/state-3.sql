CREATE VIEW "__harmonylite___change_log_global" AS SELECT id, table_name, type FROM "__harmonylite___global_change_log";
CREATE VIEW "__harmonylite___global_change_log" AS SELECT id, 't' AS table_name, CASE type WHEN 0 THEN 'delete' WHEN 1 THEN 'insert' ELSE 'update' END AS type FROM "__harmonylite__t_change_log" WHERE type <> 3;
CREATE TABLE __harmonylite__conflicts(
  id INTEGER PRIMARY KEY, time TEXT NOT NULL, table_name TEXT NOT NULL, key TEXT NOT NULL, column_name TEXT NOT NULL, losing_value,
  losing_node TEXT NOT NULL, winning_node TEXT NOT NULL, position INTEGER NOT NULL, reason TEXT NOT NULL, restored TEXT);
CREATE TABLE __harmonylite__covered(
  id INTEGER PRIMARY KEY, node_id TEXT NOT NULL, sequence INTEGER NOT NULL, base INTEGER NOT NULL, count INTEGER NOT NULL, covers BLOB NOT NULL);
CREATE TABLE __harmonylite__dead_letters(
  id INTEGER PRIMARY KEY, time TEXT NOT NULL, shard INTEGER NOT NULL, sequence INTEGER NOT NULL, reason TEXT NOT NULL, bytes BLOB NOT NULL);
CREATE TABLE __harmonylite__lives(
  node_id TEXT NOT NULL, incarnation INTEGER NOT NULL, nonce INTEGER NOT NULL, batch INTEGER NOT NULL, PRIMARY KEY(node_id, incarnation));
CREATE TABLE __harmonylite__node(
  id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, node_id TEXT NOT NULL, database_id TEXT NOT NULL, cluster_id TEXT,
  history TEXT, incarnation INTEGER NOT NULL, nonce INTEGER NOT NULL, position INTEGER NOT NULL, position_hash INTEGER NOT NULL,
  folded INTEGER NOT NULL, settled INTEGER NOT NULL DEFAULT 0);
CREATE TABLE __harmonylite__past(slot INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, hash INTEGER NOT NULL);
CREATE TABLE __harmonylite__publishers(
  node_id TEXT PRIMARY KEY, incarnation INTEGER NOT NULL, nonce INTEGER NOT NULL, batch INTEGER NOT NULL, sequence INTEGER NOT NULL);
CREATE TABLE __harmonylite__skips(first INTEGER NOT NULL, last INTEGER NOT NULL, time TEXT NOT NULL);
CREATE TABLE "__harmonylite__t_change_log"(id INTEGER PRIMARY KEY, "val_id", type, mask, generation, stamp);
CREATE TRIGGER "__harmonylite__t_delete" AFTER DELETE ON "t" BEGIN INSERT INTO "__harmonylite__t_change_log"("val_id", type, mask, generation, stamp) VALUES(OLD."id", 0, 0, 1, random() & 2147483647); DELETE FROM "__harmonylite__t_displaced_rows" WHERE "val_id" IS OLD."id"; END;
CREATE TABLE "__harmonylite__t_displaced_rows"(id INTEGER PRIMARY KEY, "val_id");
CREATE TABLE "__harmonylite__t_former_values"(id INTEGER PRIMARY KEY, "val_a");
CREATE TRIGGER "__harmonylite__t_insert" AFTER INSERT ON "t" BEGIN INSERT INTO "__harmonylite__t_change_log"("val_id", type, mask, generation, stamp) VALUES(NEW."id", 1, 0, 1, random() & 2147483647); END;
CREATE TRIGGER "__harmonylite__t_insert_displaced" AFTER INSERT ON "t" WHEN EXISTS(SELECT 1 FROM "__harmonylite__t_displaced_rows") BEGIN INSERT INTO "__harmonylite__t_change_log"("val_id", type, mask, generation, stamp) SELECT "val_id", 0, 0, 1, random() & 2147483647 FROM "__harmonylite__t_displaced_rows" WHERE NOT EXISTS(SELECT 1 FROM "t" WHERE "t"."id" = "__harmonylite__t_displaced_rows"."val_id"); DELETE FROM "__harmonylite__t_displaced_rows" WHERE NOT EXISTS(SELECT 1 FROM "t" WHERE "t"."id" = "__harmonylite__t_displaced_rows"."val_id"); END;
CREATE TRIGGER "__harmonylite__t_insert_notes" BEFORE INSERT ON "t" BEGIN INSERT INTO "__harmonylite__t_displaced_rows"("val_id") SELECT "t"."id" FROM "t" WHERE "a" = NEW."a" COLLATE BINARY AND (NEW."id" = -1 OR NOT ("t"."id" IS NEW."id")) AND NOT EXISTS(SELECT 1 FROM "__harmonylite__t_displaced_rows" WHERE "t"."id" = "__harmonylite__t_displaced_rows"."val_id"); DELETE FROM "__harmonylite__t_displaced_rows" WHERE id <= (SELECT max(id) FROM "__harmonylite__t_displaced_rows") - 16; END;
CREATE TRIGGER "__harmonylite__t_rekey" AFTER UPDATE OF "id", rowid, oid, _rowid_ ON "t" WHEN NOT (NOT (OLD."id" IS NOT NEW."id" COLLATE BINARY)) BEGIN INSERT INTO "__harmonylite__t_change_log"("val_id", type, mask, generation, stamp) VALUES(OLD."id", 0, 0, 1, random() & 2147483647); INSERT INTO "__harmonylite__t_change_log"("val_id", type, mask, generation, stamp) VALUES(NEW."id", 1, 0, 1, random() & 2147483647); END;
CREATE TRIGGER "__harmonylite__t_update" AFTER UPDATE ON "t" WHEN NOT (OLD."id" IS NOT NEW."id" COLLATE BINARY) BEGIN INSERT INTO "__harmonylite__t_change_log"("val_id", type, mask, generation, stamp) VALUES(NEW."id", (SELECT count(*) + (SELECT CASE WHEN (OLD."a" IS NOT NEW."a" COLLATE BINARY) THEN 4 ELSE 2 END) FROM (SELECT NULL AS "a", NULL AS "b") AS OLD, (SELECT NULL AS "a", NULL AS "b") AS NEW WHERE 0), (SELECT count(*) + (SELECT ((OLD."a" IS NOT NEW."a" COLLATE BINARY) << 1) | ((OLD."b" IS NOT NEW."b" COLLATE BINARY OR typeof(OLD."b") IS NOT typeof(NEW."b")) << 2)) FROM (SELECT NULL AS "a", NULL AS "b") AS OLD, (SELECT NULL AS "a", NULL AS "b") AS NEW WHERE 0), 1, random() & 2147483647); END;
CREATE TRIGGER "__harmonylite__t_update_displaced" AFTER UPDATE OF "a" ON "t" WHEN EXISTS(SELECT 1 FROM "__harmonylite__t_displaced_rows") BEGIN INSERT INTO "__harmonylite__t_change_log"("val_id", type, mask, generation, stamp) SELECT "val_id", 0, 0, 1, random() & 2147483647 FROM "__harmonylite__t_displaced_rows" WHERE NOT EXISTS(SELECT 1 FROM "t" WHERE "t"."id" = "__harmonylite__t_displaced_rows"."val_id"); DELETE FROM "__harmonylite__t_displaced_rows" WHERE NOT EXISTS(SELECT 1 FROM "t" WHERE "t"."id" = "__harmonylite__t_displaced_rows"."val_id"); END;
CREATE TRIGGER "__harmonylite__t_update_former" AFTER UPDATE OF "a" ON "t" WHEN NOT (OLD."id" IS NOT NEW."id" COLLATE BINARY) AND (SELECT count(*) + (SELECT ((OLD."a" IS NOT NEW."a" COLLATE BINARY))) FROM (SELECT NULL AS "a", NULL AS "b") AS OLD, (SELECT NULL AS "a", NULL AS "b") AS NEW WHERE 0) BEGIN INSERT OR REPLACE INTO "__harmonylite__t_former_values"(id, "val_a") VALUES((SELECT max(id) FROM "__harmonylite__t_change_log"), (SELECT coalesce(max(NULL), (SELECT OLD."a")) FROM (SELECT NULL AS "a", NULL AS "b") AS OLD, (SELECT NULL AS "a", NULL AS "b") AS NEW WHERE 0)); END;
CREATE TRIGGER "__harmonylite__t_update_notes" BEFORE UPDATE OF "a" ON "t" BEGIN INSERT INTO "__harmonylite__t_displaced_rows"("val_id") SELECT "t"."id" FROM "t" WHERE "a" = NEW."a" COLLATE BINARY AND NOT ("t"."id" IS OLD."id") AND NOT EXISTS(SELECT 1 FROM "__harmonylite__t_displaced_rows" WHERE "t"."id" = "__harmonylite__t_displaced_rows"."val_id"); DELETE FROM "__harmonylite__t_displaced_rows" WHERE id <= (SELECT max(id) FROM "__harmonylite__t_displaced_rows") - 16; END;
CREATE TABLE __harmonylite__tables(table_name TEXT PRIMARY KEY, generation INTEGER NOT NULL, columns TEXT NOT NULL, key TEXT NOT NULL, triggers TEXT NOT NULL DEFAULT '');
CREATE TABLE __harmonylite__unsure(
  table_name TEXT PRIMARY KEY COLLATE NOCASE, mark INTEGER NOT NULL, kind TEXT NOT NULL, since TEXT NOT NULL);
CREATE TABLE __harmonylite__void(sequence INTEGER PRIMARY KEY);
