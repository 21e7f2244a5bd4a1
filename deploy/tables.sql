-- Registers the tables of a ledger in Unity Catalog, and makes the view that the dashboard and the alerts read. Replace
-- main.jobrota and the URI, and run it in the SQL editor, once the first rows were delivered.
CREATE SCHEMA IF NOT EXISTS main.jobrota;

CREATE TABLE IF NOT EXISTS main.jobrota.job_notifications
USING DELTA LOCATION 'abfss://container@account.dfs.core.windows.net/path/job_notifications';

CREATE TABLE IF NOT EXISTS main.jobrota.autosys_deliveries
USING DELTA LOCATION 'abfss://container@account.dfs.core.windows.net/path/autosys_deliveries';

-- Once VMs were selected with the ledger as cursor.
CREATE TABLE IF NOT EXISTS main.jobrota.vm_selections
USING DELTA LOCATION 'abfss://container@account.dfs.core.windows.net/path/vm_selections';

-- Once a comparison was run with the ledger as --results-table.
CREATE TABLE IF NOT EXISTS main.jobrota.viya_comparison_jobs
USING DELTA LOCATION 'abfss://container@account.dfs.core.windows.net/path/viya_comparison_jobs';

-- One row with what `jobrota autosys status` says of job_notifications. Identical rows are separate events: of n pending
-- ones, as many are parked as were parked after the last redrive, and at most n.
CREATE OR REPLACE VIEW main.jobrota.delivery_state AS
WITH pending AS (
  SELECT file_name, job_id, status, notification_timestamp AS row_timestamp, COUNT(*) AS row_count
  FROM main.jobrota.job_notifications
  WHERE autosys_update_flag = 'NO'
  GROUP BY file_name, job_id, status, notification_timestamp
),
attempts AS (
  SELECT file_name, job_id, status, row_timestamp, attempt, outcome,
    MAX(CASE WHEN outcome = 'redriven' THEN attempt END)
      OVER (PARTITION BY file_name, job_id, status, row_timestamp) AS redriven
  FROM main.jobrota.autosys_deliveries
  WHERE table_name = 'job_notifications'
),
parked AS (
  SELECT file_name, job_id, status, row_timestamp, COUNT(*) AS row_count
  FROM attempts
  WHERE outcome = 'parked' AND attempt > COALESCE(redriven, -1)
  GROUP BY file_name, job_id, status, row_timestamp
),
counted AS (
  SELECT
    COALESCE(SUM(pending.row_count), 0) AS pending_rows,
    COALESCE(SUM(LEAST(pending.row_count, COALESCE(parked.row_count, 0))), 0) AS parked_rows,
    MIN(pending.row_timestamp) AS oldest_pending
  FROM pending LEFT JOIN parked
    ON pending.file_name <=> parked.file_name AND pending.job_id <=> parked.job_id
    AND pending.status <=> parked.status AND pending.row_timestamp <=> parked.row_timestamp
),
recent AS (
  SELECT 100.0 * COUNT_IF(outcome = 'delivered') / NULLIF(COUNT(*), 0) AS success_percent
  FROM main.jobrota.autosys_deliveries
  WHERE attempted_at >= NOW() - INTERVAL 24 HOURS
    AND outcome IN ('delivered', 'failed', 'unknown', 'parked')
    AND COALESCE(detail, '') <> 'not sent: the delivery was stopped before its turn'
)
SELECT
  pending_rows,
  parked_rows,
  (UNIX_SECONDS(NOW()) - UNIX_SECONDS(oldest_pending)) / 60 AS oldest_pending_minutes,
  CAST(success_percent AS DOUBLE) AS success_percent
FROM counted CROSS JOIN recent;
