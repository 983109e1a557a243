-- Keys: of every type and shape, changed in every way.

--- case keys_of_every_storage_class
--- schema
CREATE TABLE any_key(key PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE text_key(key TEXT PRIMARY KEY, v);
CREATE TABLE numeric_key(key NUMERIC PRIMARY KEY, v);
CREATE TABLE real_key(key REAL PRIMARY KEY, v);
CREATE TABLE blob_key(key BLOB PRIMARY KEY, v) WITHOUT ROWID;
--- write 1
CREATE TEMP TABLE x(n INTEGER PRIMARY KEY, v);
INSERT INTO x(v) VALUES (0), (-1), (9223372036854775807), (-9223372036854775808), (9007199254740993), (9007199254740992.0), (-0.0), (1.0), (0.1), (1e308), (-1e308), (4.9e-324), (9e999), (-9e999),
  (''), ('text'), ('Text'), ('1'), ('1.0'), (' 1'), ('true'), ('日本語 🦀'), ('a' || char(0) || 'b'), (char(0)), (CAST(x'ff00fe80' AS TEXT)), (CAST(x'c328' AS TEXT)), (x''), (x'00'), (x'ff00fe80'), (x'31');
INSERT OR REPLACE INTO any_key SELECT v, n FROM x;
INSERT OR REPLACE INTO text_key SELECT v, n FROM x;
INSERT OR REPLACE INTO numeric_key SELECT v, n FROM x;
INSERT OR REPLACE INTO real_key SELECT v, n FROM x;
INSERT OR REPLACE INTO blob_key SELECT v, n FROM x;
--- write 2
UPDATE any_key SET v = key WHERE v % 3 = 0; DELETE FROM any_key WHERE v % 3 = 1;
UPDATE text_key SET v = key WHERE v % 3 = 0; DELETE FROM text_key WHERE v % 3 = 1;
UPDATE numeric_key SET v = key WHERE v % 3 = 0; DELETE FROM numeric_key WHERE v % 3 = 1;
UPDATE real_key SET v = key WHERE v % 3 = 0; DELETE FROM real_key WHERE v % 3 = 1;
UPDATE blob_key SET v = key WHERE v % 3 = 0; DELETE FROM blob_key WHERE v % 3 = 1;
--- write 1
UPDATE any_key SET key = CAST(key AS BLOB) || x'77' WHERE typeof(key) = 'text';
UPDATE blob_key SET key = CAST(hex(key) AS BLOB) WHERE typeof(key) = 'blob';

--- case keys_that_differ_only_in_type_or_case
--- schema
CREATE TABLE close_keys(key PRIMARY KEY, v);
CREATE TABLE close_keys_2(key PRIMARY KEY, v) WITHOUT ROWID;
--- write 1
INSERT INTO close_keys VALUES('1', 'text'), (1, 'integer'), (x'31', 'blob'), ('a', 'small'), ('A', 'large'), ('a ', 'space'), (1.5, 'real'), ('1.5', 'text');
INSERT INTO close_keys_2 SELECT * FROM close_keys;
--- write 2
UPDATE close_keys SET v = v || '!' WHERE typeof(key) = 'text';
DELETE FROM close_keys_2 WHERE key = 'A' OR key = 1;
--- holds SELECT group_concat(v, ' ') FROM (SELECT v FROM close_keys ORDER BY v) => 'blob integer large! real small! space! text! text!'

--- case a_key_that_changes_from_integer_to_real
--- schema
CREATE TABLE one_key(key PRIMARY KEY, v);
CREATE TABLE one_key_2(key PRIMARY KEY, v) WITHOUT ROWID;
--- write 1
INSERT INTO one_key VALUES(1, 'a'), (2.0, 'b'); INSERT INTO one_key_2 SELECT * FROM one_key;
--- write 2
UPDATE one_key SET key = 1.0 WHERE key = 1; UPDATE one_key SET key = 2 WHERE key = 2;
UPDATE one_key_2 SET key = 1.0 WHERE key = 1; REPLACE INTO one_key_2 VALUES(2, 'c');
--- holds SELECT key, v FROM one_key UNION ALL SELECT key, v FROM one_key_2 => 1.0|'a';2|'b';1.0|'a';2|'c'

--- case nocase_key
--- schema
CREATE TABLE nocase(key TEXT COLLATE NOCASE PRIMARY KEY, v);
CREATE TABLE nocase_2(key TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID;
--- write 1
INSERT INTO nocase VALUES('a', 1), ('B', 2), ('É', 3), ('é', 4); INSERT INTO nocase_2 SELECT * FROM nocase;
--- write 2
UPDATE nocase SET key = 'A' WHERE key = 'A'; REPLACE INTO nocase VALUES('b', 5); UPDATE nocase SET v = 6 WHERE key = 'é';
UPDATE nocase_2 SET key = 'A' WHERE key = 'A'; REPLACE INTO nocase_2 VALUES('b', 5); UPDATE nocase_2 SET v = 6 WHERE key = 'é';
--- write 1
INSERT INTO nocase VALUES('B', 7) ON CONFLICT(key) DO UPDATE SET key = excluded.key, v = excluded.v;
DELETE FROM nocase_2 WHERE key = 'a';
--- holds SELECT key, v FROM nocase ORDER BY v => 'A'|1;'É'|3;'é'|6;'B'|7

--- case rtrim_key
--- schema
CREATE TABLE rtrim_key(key TEXT COLLATE RTRIM PRIMARY KEY, v);
--- write 1
INSERT INTO rtrim_key VALUES('a', 1), ('b  ', 2), (' c', 3);
--- write 2
UPDATE rtrim_key SET key = 'a   ' WHERE key = 'a'; REPLACE INTO rtrim_key VALUES('b', 4); DELETE FROM rtrim_key WHERE key = ' c  ';
--- holds SELECT '<' || key || '>', v FROM rtrim_key ORDER BY v => '<a   >'|1;'<b>'|4

--- case composite_key
--- schema
CREATE TABLE composite(a TEXT, b INTEGER, c, v, PRIMARY KEY(c, a, b));
CREATE TABLE composite_2(v, a TEXT COLLATE NOCASE, b REAL, c BLOB, PRIMARY KEY(b DESC, a, c)) WITHOUT ROWID;
--- write 1
INSERT INTO composite VALUES('ab', 1, 'c', 1), ('a', 1, 'bc', 2), ('', 1, 'abc', 3), ('abc', 1, '', 4);
INSERT INTO composite_2 VALUES(1, 'x', 1, x'00'), (2, 'x', 1, x'0000'), (3, 'X', 2, x''), (4, 'y', 1.5, 'y');
--- write 2
UPDATE composite SET v = v * 10 WHERE a = 'a'; DELETE FROM composite WHERE c = ''; UPDATE composite SET a = 'moved' WHERE a = '';
UPDATE composite_2 SET a = 'Y' WHERE a = 'y'; UPDATE composite_2 SET b = b + 1; DELETE FROM composite_2 WHERE c = x'00';
--- holds SELECT a, v FROM composite ORDER BY v => 'ab'|1;'moved'|3;'a'|20

--- case integer_primary_key_desc
--- schema
CREATE TABLE key_desc(id INTEGER PRIMARY KEY DESC, v);
--- write 1
INSERT INTO key_desc VALUES(1, 'a'), (2, 'b'), (3, 'c');
--- write 2
UPDATE key_desc SET id = 9 WHERE id = 3; DELETE FROM key_desc WHERE id = 1; UPDATE key_desc SET v = 'B' WHERE id = 2;
--- holds SELECT id, v FROM key_desc ORDER BY id => 2|'B';9|'c'

--- case key_column_not_first
--- schema
CREATE TABLE key_last(v, w UNIQUE, id INTEGER PRIMARY KEY);
--- write 1
INSERT INTO key_last VALUES('a', 1, 10), ('b', 2, 20);
--- write 2
UPDATE key_last SET id = 30, w = 3 WHERE id = 10; REPLACE INTO key_last(v, w) VALUES('c', 2);
--- holds SELECT * FROM key_last ORDER BY id => 'a'|3|30;'c'|2|31

--- case key_of_all_columns
--- schema
CREATE TABLE all_key(a, b TEXT, PRIMARY KEY(a, b));
CREATE TABLE all_key_2(a, b TEXT, PRIMARY KEY(a, b)) WITHOUT ROWID;
--- write 1
INSERT INTO all_key VALUES(1, 'x'), (1, 'y'), (2.0, 'x'); INSERT INTO all_key_2 SELECT * FROM all_key;
--- write 2
UPDATE all_key SET a = 3 WHERE b = 'y'; DELETE FROM all_key WHERE a = 1; UPDATE all_key SET a = 2;
UPDATE all_key_2 SET b = 'z' WHERE b = 'y'; INSERT OR IGNORE INTO all_key_2 VALUES(1.0, 'x');
--- holds SELECT count(*), sum(typeof(a) = 'integer') FROM all_key => 2|2

--- case single_column
--- schema
CREATE TABLE single(id INTEGER PRIMARY KEY);
CREATE TABLE single_text(k TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE single_no_key(v);
CREATE TABLE single_unique(v UNIQUE);
--- write 1
INSERT INTO single DEFAULT VALUES; INSERT INTO single VALUES(7); INSERT INTO single_text VALUES('a'), ('b'); INSERT INTO single_no_key VALUES(1), (1), (NULL); INSERT INTO single_unique VALUES(1), (NULL), (NULL);
--- write 2
DELETE FROM single WHERE id = 1; UPDATE single_text SET k = 'c' WHERE k = 'a'; UPDATE single_no_key SET v = 2 WHERE rowid = 2; REPLACE INTO single_unique VALUES(1);
--- holds SELECT group_concat(rowid || ':' || coalesce(v, 'null'), ' ') FROM single_unique => '2:null 3:null 4:1'

--- case no_primary_key
--- schema
CREATE TABLE no_key(a, b);
--- write 1
INSERT INTO no_key VALUES(1, 'x'), (1, 'x'), (2, 'y');
--- write 2
DELETE FROM no_key WHERE rowid = 1; UPDATE no_key SET b = 'z' WHERE rowid = 3; UPDATE no_key SET rowid = 77 WHERE rowid = 2; INSERT INTO no_key VALUES(3, 'w');
--- write 1
UPDATE no_key SET _rowid_ = -oid WHERE a = 2; UPDATE no_key SET oid = 5, a = 'moved' WHERE oid = 78;
--- holds SELECT rowid, * FROM no_key => -3|2|'z';5|'moved'|'w';77|1|'x'

--- case columns_named_rowid
--- schema
CREATE TABLE rowid_1(rowid TEXT, v);
CREATE TABLE rowid_2(rowid, _rowid_ UNIQUE, v);
CREATE TABLE rowid_3(rowid, _rowid_, oid, k TEXT PRIMARY KEY);
CREATE TABLE rowid_4(rowid INTEGER PRIMARY KEY, v);
CREATE TABLE rowid_5(oid TEXT PRIMARY KEY, rowid) WITHOUT ROWID;
CREATE TABLE rowid_6("ROWID" TEXT PRIMARY KEY, v);
--- write 1
INSERT INTO rowid_1 VALUES('a', 1), ('a', 2); INSERT INTO rowid_2 VALUES(1, 1, 1), (2, 2, 2); INSERT INTO rowid_3 VALUES(1, 2, 3, 'k'), (1, 2, 3, 'l');
INSERT INTO rowid_4 VALUES(5, 'a'), (6, 'b'); INSERT INTO rowid_5 VALUES('a', 1), ('b', 2); INSERT INTO rowid_6 VALUES('a', 1), ('b', 2);
--- write 2
UPDATE rowid_1 SET rowid = 'b' WHERE v = 1; UPDATE rowid_1 SET _rowid_ = 9 WHERE v = 2; REPLACE INTO rowid_2 VALUES(3, 1, 3); UPDATE rowid_2 SET oid = 50 WHERE v = 2;
UPDATE rowid_3 SET rowid = oid, _rowid_ = rowid, oid = _rowid_ WHERE k = 'l'; UPDATE rowid_4 SET rowid = rowid + 10; DELETE FROM rowid_5 WHERE oid = 'a'; UPDATE rowid_6 SET rowid = 'c', v = 3 WHERE rowid = 'a';
--- holds SELECT _rowid_, * FROM rowid_1 => 1|'b'|1;9|'a'|2
--- holds SELECT oid, * FROM rowid_2 ORDER BY oid => 3|3|1|3;50|2|2|2

--- case rowid_of_a_table_with_a_text_key
--- schema
CREATE TABLE hidden_rowid(k TEXT PRIMARY KEY, v);
--- write 1
INSERT INTO hidden_rowid VALUES('a', 1), ('b', 2);
--- write 2
-- The rowid of such a table is nobody's business: it is not replicated.
UPDATE hidden_rowid SET rowid = 99 WHERE k = 'a'; UPDATE hidden_rowid SET rowid = 100, v = 5 WHERE k = 'b';
--- holds SELECT k, v FROM hidden_rowid ORDER BY k => 'a'|1;'b'|5

--- case integer_key_changed_through_rowid
--- schema
CREATE TABLE by_rowid(id INTEGER PRIMARY KEY, v UNIQUE, w);
--- write 1
INSERT INTO by_rowid VALUES(1, 'a', 1), (2, 'b', 2), (3, 'c', 3);
--- write 2
UPDATE by_rowid SET rowid = 10 WHERE id = 1; UPDATE by_rowid SET _rowid_ = 20, w = 20 WHERE id = 2; UPDATE OR REPLACE by_rowid SET oid = 10 WHERE id = 3;
--- holds SELECT * FROM by_rowid ORDER BY id => 10|'c'|3;20|'b'|20

--- case key_swap_through_a_temporary_key
--- schema
CREATE TABLE key_swap(id INTEGER PRIMARY KEY, v, u UNIQUE);
CREATE TABLE key_swap_2(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
--- write 1
INSERT INTO key_swap VALUES(1, 'a', 'A'), (2, 'b', 'B'); INSERT INTO key_swap_2 VALUES('x', 1), ('y', 2);
--- write 2
BEGIN; UPDATE key_swap SET id = -1 WHERE id = 1; UPDATE key_swap SET id = 1 WHERE id = 2; UPDATE key_swap SET id = 2 WHERE id = -1; COMMIT;
BEGIN; UPDATE key_swap_2 SET k = '' WHERE k = 'x'; UPDATE key_swap_2 SET k = 'x' WHERE k = 'y'; UPDATE key_swap_2 SET k = 'y' WHERE k = ''; COMMIT;
--- holds SELECT * FROM key_swap ORDER BY id => 1|'b'|'B';2|'a'|'A'

--- case unique_swap_through_a_temporary_value
--- schema
CREATE TABLE unique_swap(id INTEGER PRIMARY KEY, u UNIQUE, v);
--- write 1
INSERT INTO unique_swap VALUES(1, 'a', 1), (2, 'b', 2), (3, 'c', 3);
--- write 2
BEGIN; UPDATE unique_swap SET u = NULL WHERE id = 1; UPDATE unique_swap SET u = 'a' WHERE id = 2; UPDATE unique_swap SET u = 'b' WHERE id = 3; UPDATE unique_swap SET u = 'c' WHERE id = 1; COMMIT;
--- holds SELECT u FROM unique_swap ORDER BY id => 'c';'a';'b'

--- case keys_negated
--- schema
CREATE TABLE negated(id INTEGER PRIMARY KEY, v);
--- write 1
INSERT INTO negated VALUES(1, 'a'), (2, 'b'), (3, 'c');
--- write 2
UPDATE negated SET id = -id;
--- write 1
UPDATE negated SET id = 1 - id;
--- holds SELECT * FROM negated ORDER BY id => 2|'a';3|'b';4|'c'

--- case a_range_of_keys_shifted
--- schema
CREATE TABLE shifted(id INTEGER PRIMARY KEY, v);
CREATE TABLE shifted_2(list, place, v, PRIMARY KEY(list, place)) WITHOUT ROWID;
--- write 1
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO shifted SELECT i, 'v' || i FROM n;
INSERT INTO shifted_2 SELECT id % 2, id, v FROM shifted;
--- write 2
BEGIN; UPDATE shifted SET id = id + 1000 WHERE id >= 50; UPDATE shifted SET id = id - 999 WHERE id >= 1000; INSERT INTO shifted VALUES(50, 'new'); COMMIT;
BEGIN; UPDATE shifted_2 SET place = -place WHERE list = 1; UPDATE shifted_2 SET place = 2 - place WHERE list = 1; COMMIT;
--- write 1
UPDATE OR REPLACE shifted SET id = id + 1 WHERE id < 10;
--- holds SELECT count(*), sum(id) FROM shifted => 92|5106

--- case autoincrement
--- schema
CREATE TABLE numbered(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
--- write 1
INSERT INTO numbered(v) VALUES('a'), ('b'), ('c'); INSERT INTO numbered VALUES(50, 'd');
--- write 2
INSERT INTO numbered(v) VALUES('e');
--- write 1
DELETE FROM numbered WHERE id > 3;
--- write 2
-- Neither node gives a number again that a row had, whoever wrote it.
INSERT INTO numbered(v) VALUES('f');
--- write 1
DELETE FROM numbered; INSERT INTO numbered(v) VALUES('g');
--- holds SELECT * FROM numbered => 53|'g'

--- case without_rowid
--- schema
CREATE TABLE without_rowid(k TEXT PRIMARY KEY, u UNIQUE, v) WITHOUT ROWID;
CREATE TABLE without_rowid_2(id INTEGER PRIMARY KEY, v) WITHOUT ROWID;
--- write 1
INSERT INTO without_rowid VALUES('a', 1, 1), ('b', 2, 2), ('c', 3, 3); INSERT INTO without_rowid_2 VALUES(1, 'a'), (-9223372036854775808, 'b');
--- write 2
UPDATE without_rowid SET k = 'd', u = 4 WHERE k = 'a'; REPLACE INTO without_rowid VALUES('b', 3, 9); UPDATE without_rowid_2 SET id = 2, v = 'c' WHERE id < 0;
--- fails NOT NULL
INSERT INTO without_rowid VALUES(NULL, 5, 5);
--- holds SELECT * FROM without_rowid ORDER BY k => 'b'|3|9;'d'|4|1
