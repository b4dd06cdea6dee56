mod beside;
mod damage;
mod forgotten;
mod full_disk;
mod histories;
mod killed;
mod reclaimers;
mod repair;
