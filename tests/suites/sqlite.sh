# SQLite has two writers on one database, in both of its journal modes.

setup() { debian sqlite3 sqlite3; }

checks() { check sqlite 120 check_sqlite; }

# Prints transactions that insert lines and count them. A wrong counter shows a lost update.
sqlite_transactions() { # WORKER COUNT
  echo '.bail on'
  echo '.timeout 60000'
  local i
  for ((i = 0; i < $2; i++)); do
    echo "BEGIN IMMEDIATE;"
    echo "INSERT INTO line VALUES($1, $i, hex(randomblob(200)));"
    echo "UPDATE total SET n = n + 1;"
    echo "COMMIT;"
  done
}

sqlite_two_writers() { # MODE COUNT
  local database=$draft/$1.db first
  same "$(sqlite3 "$database" "PRAGMA journal_mode=$1;")" "$1" "journal mode"
  sqlite3 "$database" 'CREATE TABLE line(worker, n, pad, UNIQUE(worker, n)); CREATE TABLE total(n);
    INSERT INTO total VALUES(0);'
  sqlite_transactions 1 "$2" | sqlite3 "$database" &
  first=$!
  sqlite_transactions 2 "$2" | sqlite3 "$database"
  wait "$first"
  sqlite_is_right "$database" "$2"
  drop_caches
  sqlite_is_right "$database" "$2"
}

sqlite_is_right() { # DATABASE COUNT
  same "$(sqlite3 "$1" 'PRAGMA integrity_check;')" ok integrity
  same "$(sqlite3 "$1" 'SELECT count(*) FROM line;')" $((2 * $2)) lines
  same "$(sqlite3 "$1" 'SELECT n FROM total;')" $((2 * $2)) counter
}

check_sqlite() {
  need sqlite3
  sqlite_two_writers wal 2500
  sqlite_two_writers delete 600
  # A database can change its mode while it has content.
  same "$(sqlite3 "$draft/wal.db" 'PRAGMA journal_mode=delete;')" delete "journal mode"
  sqlite_is_right "$draft/wal.db" 2500
}
