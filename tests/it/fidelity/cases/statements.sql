-- Statements: every way to write a row.

--- case replace
--- schema
CREATE TABLE replaced(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE, v);
CREATE TABLE replaced_2(id INTEGER PRIMARY KEY ON CONFLICT REPLACE, a UNIQUE ON CONFLICT REPLACE, v NOT NULL ON CONFLICT REPLACE DEFAULT 'd');
--- write 1
INSERT INTO replaced VALUES(1, 'a', 'x', 1), (2, 'b', 'y', 2), (3, 'c', 'z', 3); INSERT INTO replaced_2 VALUES(1, 1, 1), (2, 2, 2), (3, 3, 3);
--- write 2
REPLACE INTO replaced VALUES(4, 'a', 'y', 4); REPLACE INTO replaced(a, v) VALUES('c', 5); INSERT INTO replaced_2 VALUES(1, 3, NULL);
--- write 1
UPDATE OR REPLACE replaced SET a = 'c' WHERE id = 4; UPDATE replaced_2 SET a = 2 WHERE id = 1; INSERT OR ABORT INTO replaced_2 VALUES(9, 9, 9);
--- fails UNIQUE constraint failed
INSERT OR ABORT INTO replaced_2 VALUES(9, 8, 8);
--- holds SELECT * FROM replaced => 4|'c'|'y'|4
--- holds SELECT * FROM replaced_2 => 1|2|'d';9|9|9

--- case replace_with_recursive_triggers
--- schema
CREATE TABLE replaced_3(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE);
--- write 1
PRAGMA recursive_triggers = ON; INSERT INTO replaced_3 VALUES(1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z');
--- write 2
PRAGMA recursive_triggers = ON; REPLACE INTO replaced_3 VALUES(4, 'a', 'y'); UPDATE OR REPLACE replaced_3 SET a = 'c' WHERE id = 4; REPLACE INTO replaced_3 VALUES(4, 'd', 'd');
--- holds SELECT * FROM replaced_3 => 4|'d'|'d'

--- case replace_many_rows_at_once
--- schema
CREATE TABLE replaced_4(id INTEGER PRIMARY KEY, u UNIQUE);
--- write 1
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO replaced_4 SELECT i, i FROM n;
--- write 2
-- Each row displaces another, some of them one that came a moment before.
INSERT OR REPLACE INTO replaced_4 SELECT id + 100, (u * 7) % 50 FROM replaced_4 WHERE id <= 150;
UPDATE OR REPLACE replaced_4 SET u = u / 2;

--- case or_fail_half_way
--- schema
CREATE TABLE or_fail(id INTEGER PRIMARY KEY, u UNIQUE, n CHECK(n < 10));
--- write 1
INSERT INTO or_fail VALUES(1, 1, 1), (2, 2, 2), (3, 3, 3);
--- fails UNIQUE constraint failed
INSERT OR FAIL INTO or_fail VALUES(4, 4, 4), (5, 5, 5), (6, 1, 6), (7, 7, 7);
--- write 2
INSERT INTO or_fail VALUES(8, 8, 8);
--- fails UNIQUE constraint failed
UPDATE OR FAIL or_fail SET u = CASE id WHEN 8 THEN 102 ELSE u + 100 END;
--- holds SELECT id, u FROM or_fail ORDER BY id => 1|101;2|102;3|103;4|104;5|105;8|8

--- case or_abort_half_way
--- schema
CREATE TABLE or_abort(id INTEGER PRIMARY KEY, u UNIQUE);
--- write 1
INSERT INTO or_abort VALUES(1, 1), (2, 2);
--- fails UNIQUE constraint failed
BEGIN; INSERT INTO or_abort VALUES(3, 3); INSERT OR ABORT INTO or_abort VALUES(4, 4), (5, 1);
--- write 1
INSERT INTO or_abort VALUES(6, 6); COMMIT;
--- holds SELECT * FROM or_abort => 1|1;2|2;3|3;6|6

--- case or_rollback_half_way
--- schema
CREATE TABLE or_rollback(id INTEGER PRIMARY KEY, u UNIQUE);
--- write 1
INSERT INTO or_rollback VALUES(1, 1), (2, 2);
--- fails UNIQUE constraint failed
BEGIN; INSERT INTO or_rollback VALUES(3, 3); UPDATE or_rollback SET u = 9 WHERE id = 1; INSERT OR ROLLBACK INTO or_rollback VALUES(4, 4), (5, 2);
--- write 2
INSERT INTO or_rollback VALUES(6, 6);
--- holds SELECT * FROM or_rollback => 1|1;2|2;6|6

--- case or_ignore
--- schema
CREATE TABLE or_ignore(id INTEGER PRIMARY KEY, u UNIQUE, n NOT NULL);
--- write 1
INSERT INTO or_ignore VALUES(1, 1, 1), (2, 2, 2), (3, 3, 3);
--- write 2
INSERT OR IGNORE INTO or_ignore VALUES(1, 9, 9), (4, 2, 4), (5, 5, NULL), (6, 6, 6); UPDATE OR IGNORE or_ignore SET u = 3, n = n + 1 WHERE id IN (1, 3); UPDATE OR IGNORE or_ignore SET id = id + 1;
--- holds SELECT * FROM or_ignore ORDER BY id => 1|1|1;2|2|2;4|3|4;7|6|6

--- case upsert_with_every_target
--- schema
CREATE TABLE upsert(id INTEGER PRIMARY KEY, a UNIQUE, b, c, v DEFAULT 0);
CREATE UNIQUE INDEX upsert_b ON upsert(b, lower(c)) WHERE b > 0;
--- write 1
INSERT INTO upsert VALUES(1, 'a', 1, 'X', 0), (2, 'b', 2, 'Y', 0), (3, 'c', -1, 'Z', 0);
--- write 2
INSERT INTO upsert(id, v) VALUES(1, 1) ON CONFLICT(id) DO UPDATE SET v = excluded.v;
INSERT INTO upsert(a, v) VALUES('b', 2), ('d', 3) ON CONFLICT(a) DO UPDATE SET v = upsert.v + excluded.v, id = id + 10;
INSERT INTO upsert(b, c) VALUES(1, 'x') ON CONFLICT(b, lower(c)) WHERE b > 0 DO UPDATE SET c = excluded.c;
INSERT INTO upsert(a) VALUES('c') ON CONFLICT DO NOTHING;
INSERT INTO upsert(id, a) VALUES(3, 'zz') ON CONFLICT(a) DO NOTHING ON CONFLICT(id) DO UPDATE SET v = 'last' WHERE a = 'c';
INSERT INTO upsert(a, v) SELECT a, 'twice' FROM upsert WHERE true ON CONFLICT(a) DO UPDATE SET v = excluded.v || v WHERE id < 3;
--- holds SELECT * FROM upsert ORDER BY id => 1|'a'|1|'x'|'twice1';3|'c'|-1|'Z'|'last';12|'b'|2|'Y'|2;13|'d'|NULL|NULL|3

--- case returning
--- schema
CREATE TABLE returning_rows(id INTEGER PRIMARY KEY, a UNIQUE, v);
--- write 1
INSERT INTO returning_rows(a, v) VALUES('a', 1), ('b', 2) RETURNING id, v * 2;
--- write 2
UPDATE returning_rows SET v = v + 1 RETURNING *; REPLACE INTO returning_rows(a, v) VALUES('a', 9) RETURNING id; DELETE FROM returning_rows WHERE a = 'b' RETURNING v;
--- holds SELECT * FROM returning_rows => 3|'a'|9

--- case update_from
--- schema
CREATE TABLE update_from(id INTEGER PRIMARY KEY, v, u UNIQUE);
CREATE TABLE update_from_2(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
--- write 1
INSERT INTO update_from VALUES(1, 'a', 1), (2, 'b', 2), (3, 'c', 3); INSERT INTO update_from_2 VALUES('a', 10), ('b', 20);
--- write 2
UPDATE update_from SET u = s.v FROM update_from_2 AS s WHERE s.k = update_from.v; UPDATE update_from_2 SET k = k || u, v = u FROM update_from AS f WHERE f.v = k;
--- holds SELECT u FROM update_from UNION ALL SELECT k FROM update_from_2 => 3;10;20;'a10';'b20'

--- case savepoints_rolled_back
--- schema
CREATE TABLE savepoints(id INTEGER PRIMARY KEY, u UNIQUE, v);
--- write 1
BEGIN; INSERT INTO savepoints VALUES(1, 1, 1); SAVEPOINT a; INSERT INTO savepoints VALUES(2, 2, 2); UPDATE savepoints SET v = 'lost'; SAVEPOINT b; REPLACE INTO savepoints VALUES(3, 1, 3); RELEASE b; ROLLBACK TO a; INSERT INTO savepoints VALUES(4, 4, 4); RELEASE a; COMMIT;
--- write 2
SAVEPOINT outer; DELETE FROM savepoints; SAVEPOINT inner; INSERT INTO savepoints VALUES(9, 9, 9); ROLLBACK TO outer; UPDATE savepoints SET v = 'kept' WHERE id = 1; RELEASE outer;
--- write 1
BEGIN; DELETE FROM savepoints; ROLLBACK;
--- holds SELECT * FROM savepoints => 1|1|'kept';4|4|4

--- case delete_without_where
--- schema
CREATE TABLE truncated(id INTEGER PRIMARY KEY, u UNIQUE);
CREATE TABLE truncated_2(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE truncated_3(a, b);
--- write 1
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO truncated SELECT i, -i FROM n; INSERT INTO truncated_2 SELECT id, u FROM truncated; INSERT INTO truncated_3 SELECT id, u FROM truncated;
--- write 2
DELETE FROM truncated; DELETE FROM truncated_2; DELETE FROM truncated_3; INSERT INTO truncated_3 VALUES('after', 1);
--- holds SELECT (SELECT count(*) FROM truncated), (SELECT count(*) FROM truncated_2), (SELECT count(*) FROM truncated_3) => 0|0|1

--- case common_table_expressions
--- schema
CREATE TABLE tree(id INTEGER PRIMARY KEY, parent, name);
--- write 1
INSERT INTO tree VALUES(1, NULL, 'root'), (2, 1, 'a'), (3, 2, 'b'), (4, 1, 'c'), (5, 3, 'd');
--- write 2
WITH RECURSIVE below(id) AS (VALUES(2) UNION SELECT tree.id FROM tree JOIN below ON parent = below.id) UPDATE tree SET name = name || '!' WHERE id IN below;
WITH leaves AS MATERIALIZED (SELECT id FROM tree WHERE id NOT IN (SELECT parent FROM tree WHERE parent IS NOT NULL)) DELETE FROM tree WHERE id IN (SELECT id FROM leaves) AND name GLOB '*!';
--- holds SELECT id, name FROM tree => 1|'root';2|'a!';3|'b!';4|'c'

--- case ten_thousand_rows_in_one_statement
--- schema
CREATE TABLE many(id INTEGER PRIMARY KEY, u TEXT UNIQUE, v);
CREATE TABLE many_2(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
--- write 1
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO many SELECT i, 'u' || i, i * 0.5 FROM n;
INSERT INTO many_2 SELECT u, v FROM many;
--- write 2
UPDATE many SET v = v + 1 WHERE id % 2; DELETE FROM many WHERE id % 3 = 0; INSERT OR REPLACE INTO many(u, v) SELECT 'u' || (id + 1), 'replaced' FROM many; UPDATE many_2 SET k = k || 'x' WHERE v > 2500;
--- holds SELECT count(*), sum(v = 'replaced') FROM many => 10001|6667

--- case a_row_changed_many_times_in_a_transaction
--- schema
CREATE TABLE often(id INTEGER PRIMARY KEY, u UNIQUE, v);
--- write 1
BEGIN; INSERT INTO often VALUES(1, 'a', 1); UPDATE often SET v = 2; UPDATE often SET id = 2; DELETE FROM often; INSERT INTO often VALUES(2, 'b', 3), (3, 'a', 4); UPDATE often SET u = 'c' WHERE id = 2; COMMIT;
--- write 2
BEGIN; DELETE FROM often WHERE id = 2; INSERT INTO often VALUES(2, 'd', 5); UPDATE often SET id = 7 WHERE id = 3; INSERT INTO often VALUES(3, 'e', 6); DELETE FROM often WHERE id = 3; COMMIT;
--- holds SELECT * FROM often => 2|'d'|5;7|'a'|4

--- case an_update_that_changes_nothing
--- schema
CREATE TABLE unchanged(id INTEGER PRIMARY KEY, u UNIQUE, v);
--- write 1
INSERT INTO unchanged VALUES(1, 1, 1.0), (2, 2, x'');
--- write 2
UPDATE unchanged SET v = v, u = u, id = id; REPLACE INTO unchanged SELECT * FROM unchanged;
--- holds SELECT * FROM unchanged => 1|1|1.0;2|2|x''

--- case limit_and_order_in_subqueries
--- schema
CREATE TABLE queue(id INTEGER PRIMARY KEY, state, at);
--- write 1
INSERT INTO queue(state, at) VALUES('new', 3), ('new', 1), ('new', 2);
--- write 2
UPDATE queue SET state = 'taken' WHERE id = (SELECT id FROM queue WHERE state = 'new' ORDER BY at LIMIT 1) RETURNING id; DELETE FROM queue WHERE id IN (SELECT id FROM queue WHERE state = 'new' ORDER BY at DESC LIMIT 1);
--- holds SELECT id, state FROM queue => 2|'taken';3|'new'

--- case settings_of_the_app
--- schema
CREATE TABLE settings(id INTEGER PRIMARY KEY, u UNIQUE, v);
--- write 1
PRAGMA trusted_schema = OFF; PRAGMA recursive_triggers = ON; PRAGMA legacy_alter_table = ON; PRAGMA cell_size_check = ON; PRAGMA secure_delete = ON; PRAGMA case_sensitive_like = ON; PRAGMA reverse_unordered_selects = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = 10;
INSERT INTO settings VALUES(1, 1, 1), (2, 2, 2), (3, 3, 3); REPLACE INTO settings VALUES(4, 1, 4); UPDATE OR REPLACE settings SET u = 3 WHERE id = 2; DELETE FROM settings WHERE v LIKE '4';
--- write 2
PRAGMA writable_schema = ON; PRAGMA count_changes = ON; PRAGMA full_column_names = ON; PRAGMA automatic_index = OFF; PRAGMA read_uncommitted = ON;
UPDATE settings SET v = v || '!'; REPLACE INTO settings VALUES(5, 3, 5); PRAGMA writable_schema = OFF;
--- holds SELECT * FROM settings => 5|3|5
