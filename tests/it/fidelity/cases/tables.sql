-- Tables, columns and indexes of every form.

--- case strict_table
--- schema
CREATE TABLE strict_all(id INT PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, a ANY) STRICT;
CREATE TABLE strict_without(k ANY PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID;
CREATE TABLE strict_no_key(a ANY, t TEXT) STRICT;
--- write 1
INSERT INTO strict_all VALUES(1, '12', 3, 4, x'05', '006'), (2, 1.0, '2.5', 'x', NULL, 7.0), (3, NULL, NULL, NULL, NULL, NULL);
INSERT INTO strict_without VALUES('1', 1), (1, '1'), (1.5, x'31'), (x'31', 1.0); INSERT INTO strict_no_key VALUES('007', 'a'), (7, 'b');
--- write 2
UPDATE strict_all SET a = CASE typeof(a) WHEN 'text' THEN 6 WHEN 'real' THEN 7 ELSE x'' END, r = -0.0;
UPDATE strict_without SET v = CASE typeof(v) WHEN 'integer' THEN 1.0 WHEN 'real' THEN 1 ELSE v END; DELETE FROM strict_no_key WHERE typeof(a) = 'text';
--- fails cannot store TEXT value in INTEGER column
INSERT INTO strict_all(id, i) VALUES(4, 'x');
--- holds SELECT typeof(i), typeof(r), typeof(t), typeof(b), typeof(a) FROM strict_all ORDER BY id => 'integer'|'real'|'text'|'blob'|'integer';'integer'|'real'|'text'|'null'|'integer';'null'|'real'|'null'|'null'|'blob'

--- case affinities_by_declared_type
--- schema
CREATE TABLE declared(id INTEGER PRIMARY KEY, a "POINT", b "FLOATING POINT", c CHARINT, d VARCHAR(10), e "", f DATE, g BLOBBY, h "ANY", i JSON, j UUID);
--- write 1
INSERT INTO declared VALUES(1, '1', '1', '1', '1', '1', '1', '1', '1', '1', '1'), (2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
--- write 2
UPDATE declared SET a = 1.5, b = 2, c = 1.0, d = 2, e = '2', f = '2026-01-01', g = 2.0, h = '2', i = '{}', j = x'00' WHERE id = 2;
UPDATE declared SET e = 1, g = 1, h = 1.0, i = '1.0' WHERE id = 1;
--- holds SELECT typeof(a), typeof(b), typeof(c), typeof(d), typeof(e), typeof(f), typeof(g), typeof(h), typeof(i), typeof(j) FROM declared WHERE id = 2 => 'real'|'integer'|'integer'|'text'|'integer'|'text'|'real'|'integer'|'text'|'blob'

--- case generated_columns
--- schema
CREATE TABLE generated(id INTEGER PRIMARY KEY, a, virtual AS (a * 2), stored AS (a || '!') STORED, b TEXT GENERATED ALWAYS AS (upper(stored)) VIRTUAL, c, CHECK(virtual < 1000));
CREATE UNIQUE INDEX generated_unique ON generated(virtual);
CREATE INDEX generated_index ON generated(b, c);
--- write 1
INSERT INTO generated(a, c) VALUES(1, 'x'), (2, 'y'), (NULL, 'z'), ('q', 'w');
--- write 2
UPDATE generated SET a = 3 WHERE id = 1; UPDATE generated SET c = 'C' WHERE id = 3; REPLACE INTO generated(id, a) VALUES(9, 2);
--- fails CHECK constraint failed
INSERT INTO generated(a) VALUES(500);
--- holds SELECT * FROM generated ORDER BY id => 1|3|6|'3!'|'3!'|'x';3|NULL|NULL|NULL|NULL|'C';4|'q'|0|'q!'|'Q!'|'w';9|2|4|'2!'|'2!'|NULL

--- case generated_column_first
--- schema
CREATE TABLE generated_first(g AS (k || v) STORED UNIQUE, k TEXT PRIMARY KEY, h AS (length(v)), v) WITHOUT ROWID;
--- write 1
INSERT INTO generated_first(k, v) VALUES('a', 'bc'), ('b', 'c');
--- write 2
REPLACE INTO generated_first(k, v) VALUES('ab', 'c'); UPDATE generated_first SET v = 'longer' WHERE k = 'b';
--- holds SELECT * FROM generated_first ORDER BY k => 'abc'|'ab'|1|'c';'blonger'|'b'|6|'longer'

--- case defaults
--- schema
CREATE TABLE defaults(id INTEGER PRIMARY KEY, a DEFAULT 1, b DEFAULT 'it''s', c DEFAULT (abs(-5) + 1), d DEFAULT NULL, e DEFAULT x'00ff', f NOT NULL DEFAULT 'kept', g TEXT DEFAULT 'now', h DEFAULT -1.5, i DEFAULT true, j DEFAULT "quoted");
--- write 1
INSERT INTO defaults DEFAULT VALUES; INSERT INTO defaults(id, a) VALUES(7, 2);
--- write 2
REPLACE INTO defaults(id, f) VALUES(7, NULL); INSERT INTO defaults(a, g) VALUES(NULL, 'given');
--- holds SELECT a, b, c, d, e, f, g IS NOT NULL, h, i, j FROM defaults ORDER BY id => 1|'it's'|6|NULL|x'00ff'|'kept'|1|-1.5|1|'quoted';1|'it's'|6|NULL|x'00ff'|'kept'|1|-1.5|1|'quoted';NULL|'it's'|6|NULL|x'00ff'|'kept'|1|-1.5|1|'quoted'

--- case defaults_by_the_clock
--- differs between databases
--- schema
CREATE TABLE clock(id INTEGER PRIMARY KEY, a DEFAULT CURRENT_TIMESTAMP, b DEFAULT CURRENT_DATE, c DEFAULT (julianday('now')), d NOT NULL DEFAULT (strftime('%f', 'now')), e DEFAULT (randomblob(8)) UNIQUE);
--- write 1
INSERT INTO clock DEFAULT VALUES; INSERT INTO clock(id, a) VALUES(7, 'given');
--- write 2
REPLACE INTO clock(id, d) VALUES(7, NULL); INSERT INTO clock(a) VALUES(random());
--- holds SELECT count(*), sum(length(e)), sum(d IS NULL) FROM clock => 3|24|0

--- case builtin_collations
--- schema
CREATE TABLE collated(id INTEGER PRIMARY KEY, a COLLATE NOCASE UNIQUE, b COLLATE RTRIM, c);
CREATE INDEX collated_b ON collated(b COLLATE NOCASE, c COLLATE RTRIM DESC);
CREATE UNIQUE INDEX collated_c ON collated(c COLLATE NOCASE);
--- write 1
INSERT INTO collated VALUES(1, 'x', 'b', 'c'), (2, 'Y', 'B ', 'C '), (3, 'z', 'b  ', 'd');
--- write 2
UPDATE collated SET a = 'X', b = 'b ', c = 'C' WHERE id = 1; REPLACE INTO collated VALUES(4, 'y', 'b', 'D');
--- holds SELECT * FROM collated ORDER BY id => 1|'X'|'b '|'C';4|'y'|'b'|'D'

--- case partial_expression_and_desc_indexes
--- schema
CREATE TABLE indexed(id INTEGER PRIMARY KEY, a, b, c TEXT, d);
CREATE INDEX indexed_1 ON indexed(a DESC, b) WHERE c IS NOT NULL;
CREATE INDEX indexed_2 ON indexed(lower(c), a + b, json_extract(d, '$.x'));
CREATE INDEX indexed_3 ON indexed(substr(c, 1, 2) COLLATE NOCASE DESC);
--- write 1
INSERT INTO indexed VALUES(1, 1, 2, 'Text', '{"x": 1}'), (2, NULL, NULL, NULL, NULL), (3, 'a', x'00', 'é', '{}');
--- write 2
UPDATE indexed SET c = NULL WHERE id = 1; UPDATE indexed SET c = 'now', d = '{"x": [2]}' WHERE id = 2; DELETE FROM indexed WHERE lower(c) = 'é';
--- holds SELECT id FROM indexed INDEXED BY indexed_1 WHERE c IS NOT NULL => 2

--- case partial_unique_index
--- schema
CREATE TABLE partial(id INTEGER PRIMARY KEY, owner, active, v);
CREATE UNIQUE INDEX partial_active ON partial(owner) WHERE active;
--- write 1
INSERT INTO partial VALUES(1, 'a', 1, 1), (2, 'a', 0, 2), (3, 'b', 1, 3), (4, 'a', 0, 4);
--- write 2
BEGIN; UPDATE partial SET active = 0 WHERE id = 1; UPDATE partial SET active = 1 WHERE id = 2; COMMIT;
UPDATE OR REPLACE partial SET owner = 'a' WHERE id = 3; REPLACE INTO partial VALUES(5, 'a', 0, 5);
--- write 1
UPDATE OR REPLACE partial SET active = 1 WHERE id = 4;
--- holds SELECT id, owner, active FROM partial ORDER BY id => 1|'a'|0;4|'a'|1;5|'a'|0

--- case expression_unique_index
--- schema
CREATE TABLE expression(id INTEGER PRIMARY KEY, mail TEXT, n INTEGER, v);
CREATE UNIQUE INDEX expression_mail ON expression(lower(mail) DESC, coalesce(n, 0));
--- write 1
INSERT INTO expression VALUES(1, 'A@x', NULL, 1), (2, 'b@x', 1, 2), (3, NULL, NULL, 3), (4, NULL, NULL, 4);
--- write 2
REPLACE INTO expression VALUES(5, 'a@X', 0, 5); UPDATE OR REPLACE expression SET mail = 'B@X', n = 1 WHERE id = 3;
--- fails UNIQUE constraint failed
UPDATE expression SET mail = 'A@X', n = 0 WHERE id = 4;
--- holds SELECT id, mail FROM expression ORDER BY id => 3|'B@X';4|NULL;5|'a@X'

--- case several_unique_indexes
--- schema
CREATE TABLE uniques(id INTEGER PRIMARY KEY, a UNIQUE, b, c, d NOT NULL DEFAULT 'd', UNIQUE(b, c), UNIQUE(c, b), UNIQUE(d, a));
--- write 1
INSERT INTO uniques VALUES(1, 'a', 1, 1, 'x'), (2, 'b', 2, 2, 'x'), (3, 'c', 3, 3, 'x'), (4, NULL, NULL, 4, 'x'), (5, NULL, NULL, 4, 'x');
--- write 2
REPLACE INTO uniques VALUES(6, 'a', 2, 2, NULL);
--- write 1
UPDATE OR REPLACE uniques SET b = 2, c = 2 WHERE id = 3;
--- holds SELECT * FROM uniques ORDER BY id => 3|'c'|2|2|'x';4|NULL|NULL|4|'x';5|NULL|NULL|4|'x'

--- case check_constraints
--- schema
CREATE TABLE checked(id INTEGER PRIMARY KEY, a CHECK(a > 0), b, CONSTRAINT ordered CHECK(a < b));
--- write 1
INSERT INTO checked VALUES(1, 1, 2), (2, 2, 3);
--- fails CHECK constraint failed: ordered
UPDATE checked SET a = 9;
--- write 2
UPDATE OR IGNORE checked SET b = CASE id WHEN 1 THEN 0 ELSE 4 END;
--- write 1
PRAGMA ignore_check_constraints = ON; INSERT INTO checked VALUES(3, -1, -2); PRAGMA ignore_check_constraints = OFF;
--- write 2
DELETE FROM checked WHERE id = 3;
--- holds SELECT * FROM checked => 1|1|2;2|2|4

--- case empty_table
--- schema
CREATE TABLE empty_table(id INTEGER PRIMARY KEY, v);
--- holds SELECT count(*) FROM empty_table => 0

--- case views_are_left_alone
--- schema
CREATE TABLE viewed(id INTEGER PRIMARY KEY, a, b);
CREATE VIEW viewed_sums AS SELECT id, a + b AS total FROM viewed;
CREATE TRIGGER viewed_insert INSTEAD OF INSERT ON viewed_sums BEGIN INSERT INTO viewed VALUES(NEW.id, NEW.total, 0); END;
--- write 1
INSERT INTO viewed_sums VALUES(1, 5); INSERT INTO viewed VALUES(2, 1, 1);
--- write 2
INSERT INTO viewed_sums VALUES(3, 6); UPDATE viewed SET b = 1 WHERE id = 1;
--- holds SELECT * FROM viewed_sums => 1|6;2|2;3|6
