-- Foreign keys. The apps have `PRAGMA foreign_keys = ON`.

--- case cascades
--- schema
CREATE TABLE cascade_parent(id INTEGER PRIMARY KEY, code UNIQUE);
CREATE TABLE cascade_child(id INTEGER PRIMARY KEY, parent REFERENCES cascade_parent(id) ON DELETE CASCADE ON UPDATE CASCADE, v);
CREATE TABLE cascade_grandchild(k TEXT PRIMARY KEY, child REFERENCES cascade_child ON DELETE CASCADE ON UPDATE CASCADE) WITHOUT ROWID;
CREATE TABLE cascade_code(id INTEGER PRIMARY KEY, code REFERENCES cascade_parent(code) ON UPDATE CASCADE ON DELETE SET NULL);
--- write 1
INSERT INTO cascade_parent VALUES(1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO cascade_child VALUES(10, 1, 'x'), (11, 1, 'y'), (20, 2, 'z'), (30, 3, 'w'); INSERT INTO cascade_grandchild VALUES('a', 10), ('b', 20), ('c', 30); INSERT INTO cascade_code VALUES(1, 'a'), (2, 'b'), (3, 'c');
--- write 2
DELETE FROM cascade_parent WHERE id = 1; UPDATE cascade_parent SET id = 9, code = 'q' WHERE id = 2; REPLACE INTO cascade_parent VALUES(3, 'new');
--- write 1
UPDATE cascade_child SET id = 99 WHERE id = 20;
--- holds SELECT * FROM cascade_child => 99|9|'z'
--- holds SELECT * FROM cascade_grandchild => 'b'|99
--- holds SELECT * FROM cascade_code => 1|NULL;2|'q';3|NULL

--- case set_null_and_set_default
--- schema
CREATE TABLE set_parent(k TEXT COLLATE NOCASE PRIMARY KEY);
CREATE TABLE set_child(id INTEGER PRIMARY KEY, a REFERENCES set_parent ON DELETE SET NULL ON UPDATE SET NULL, b DEFAULT 'none' REFERENCES set_parent ON DELETE SET DEFAULT ON UPDATE SET DEFAULT, UNIQUE(a, b, id));
--- write 1
INSERT INTO set_parent VALUES('none'), ('x'), ('y'), ('z'); INSERT INTO set_child VALUES(1, 'x', 'x'), (2, 'y', 'Y'), (3, 'z', 'none');
--- write 2
DELETE FROM set_parent WHERE k = 'x'; UPDATE set_parent SET k = 'changed' WHERE k = 'y';
--- holds SELECT * FROM set_child => 1|NULL|'none';2|NULL|'none';3|'z'|'none'

--- case restrict_and_no_action
--- schema
CREATE TABLE restrict_parent(id INTEGER PRIMARY KEY);
CREATE TABLE restrict_child(id INTEGER PRIMARY KEY, a REFERENCES restrict_parent ON DELETE RESTRICT, b REFERENCES restrict_parent ON DELETE NO ACTION);
--- write 1
INSERT INTO restrict_parent VALUES(1), (2), (3); INSERT INTO restrict_child VALUES(1, 1, NULL), (2, NULL, 2);
--- fails FOREIGN KEY constraint failed
DELETE FROM restrict_parent WHERE id = 1;
--- write 2
DELETE FROM restrict_child WHERE id = 2; DELETE FROM restrict_parent WHERE id > 1;
--- fails FOREIGN KEY constraint failed
INSERT INTO restrict_child VALUES(9, 9, 9);
--- holds SELECT * FROM restrict_parent => 1

--- case deferred_foreign_keys
--- schema
CREATE TABLE deferred_parent(id INTEGER PRIMARY KEY, best REFERENCES deferred_child DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE deferred_child(id INTEGER PRIMARY KEY, parent NOT NULL REFERENCES deferred_parent);
--- write 1
BEGIN; PRAGMA defer_foreign_keys = ON; INSERT INTO deferred_parent VALUES(1, 10); INSERT INTO deferred_child VALUES(10, 1), (20, 2); INSERT INTO deferred_parent VALUES(2, 20); COMMIT;
--- write 2
BEGIN; PRAGMA defer_foreign_keys = ON; DELETE FROM deferred_parent WHERE id = 1; INSERT INTO deferred_parent VALUES(1, 20); DELETE FROM deferred_child WHERE id = 10; COMMIT;
--- holds SELECT * FROM deferred_parent => 1|20;2|20

--- case self_reference
--- schema
CREATE TABLE self_reference(id INTEGER PRIMARY KEY, parent REFERENCES self_reference ON DELETE CASCADE ON UPDATE CASCADE, v UNIQUE);
--- write 1
INSERT INTO self_reference VALUES(1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, NULL, 'd'), (5, 4, 'e');
--- write 2
UPDATE self_reference SET id = 40 WHERE id = 4; DELETE FROM self_reference WHERE id = 2; REPLACE INTO self_reference VALUES(6, NULL, 'a');
--- fails FOREIGN KEY constraint failed
INSERT INTO self_reference VALUES(9, 77, 'x');
--- holds SELECT * FROM self_reference => 5|40|'e';6|NULL|'a';40|NULL|'d'

--- case composite_foreign_key
--- schema
CREATE TABLE composite_parent(a TEXT, b INTEGER, PRIMARY KEY(a, b)) WITHOUT ROWID;
CREATE TABLE composite_child(id INTEGER PRIMARY KEY, x, y, FOREIGN KEY(x, y) REFERENCES composite_parent(a, b) ON UPDATE CASCADE ON DELETE CASCADE MATCH FULL);
--- write 1
INSERT INTO composite_parent VALUES('a', 1), ('a', 2); INSERT INTO composite_child VALUES(1, 'a', 1), (2, 'a', 2), (3, 'a', NULL);
--- write 2
UPDATE composite_parent SET a = 'b' WHERE b = 1; DELETE FROM composite_parent WHERE b = 2;
--- holds SELECT * FROM composite_child => 1|'b'|1;3|'a'|NULL

--- case child_written_before_its_parent
--- schema
CREATE TABLE early_child(id INTEGER PRIMARY KEY, parent REFERENCES late_parent);
CREATE TABLE late_parent(id INTEGER PRIMARY KEY);
--- write 1
PRAGMA foreign_keys = OFF; INSERT INTO early_child VALUES(1, 1);
--- write 2
INSERT INTO late_parent VALUES(1);
--- holds SELECT * FROM late_parent => 1
